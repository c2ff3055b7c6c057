"""Export: dynamic where the profile is, named after modules, weights untouched beside the graph."""

import numpy as np
import onnx
import onnxruntime
import pytest
import shared_exports
import small_checkpoint
import tiny_random
import torch

from sdtrt import registry
from sdtrt.errors import ExportError, GraphError
from sdtrt.export import onnx_export
from sdtrt.graph import optimize
from sdtrt.models import family_of
from sdtrt.plan.node_names import module_of
from sdtrt.shapes.sample_inputs import sample_inputs
from sdtrt.shapes.spec import ComponentSpec, ShapeProfile, TensorSpec

ODD = ShapeProfile.parse("B=1:1:2,H=64:72:96,W=64:104:128,T=77:77:154")


@pytest.fixture(scope="module")
def captured(models, tmp_path_factory):
    """A U-Net, exported for sizes in steps of 8 pixels and for several prompt lengths, with its module."""
    base = tmp_path_factory.mktemp("unet")
    folder = small_checkpoint.make(models["sd2"], base / "model")
    spec = family_of(folder).components(folder, "fp32")["unet"]
    module = spec.load(folder)
    return spec, module, onnx_export.capture(spec, module, [ODD], 20, base / "onnx")


@pytest.mark.slow
def test_a_profile_in_fine_steps_serves_sizes_that_do_not_divide(captured):
    spec, module, path = captured
    assert spec.steps([ODD]) == {"H": 8, "W": 8}
    session = onnxruntime.InferenceSession(path)
    for sizes in ({"B": 1, "H": 72, "W": 104, "T": 77}, {"B": 2, "H": 96, "W": 64, "T": 154}):
        inputs = sample_inputs(spec, sizes)
        with torch.inference_mode():
            expected = module(**inputs)[0].numpy()
        (got,) = session.run(None, {n: t.numpy() for n, t in inputs.items()})
        np.testing.assert_allclose(got, expected, atol=1e-4)


@pytest.mark.slow
def test_nodes_are_named_after_modules_and_weights_after_parameters(captured):
    _, module, path = captured
    model = onnx.load(path, load_external_data=False)
    names = [node.name for node in model.graph.node]
    assert len(names) == len(set(names))
    assert "/down_blocks.0/resnets.0/conv1/Conv" in names
    parameters = {n for n, _ in module.inner.named_parameters()}
    weights = {t.name for t in model.graph.initializer if t.data_location == onnx.TensorProto.EXTERNAL}
    assert weights <= parameters
    assert "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.weight" in weights
    known = {n for n, _ in module.inner.named_modules()} | {"(top)"}
    assert {module_of(name) for name in names} <= known


@pytest.mark.slow
def test_every_pass_keeps_the_result_and_runs_to_a_fixed_point(captured):
    spec, _, path = captured
    inputs = {n: t.numpy() for n, t in sample_inputs(spec, ODD.sizes("opt")).items()}
    (before,) = onnxruntime.InferenceSession(path).run(None, inputs)
    for name in registry.names("sdtrt.graph.passes"):
        (change,) = optimize.optimize(path, [name])
        assert change.nodes_after <= change.nodes_before
        (again,) = optimize.optimize(path, [name])
        assert (again.changed, again.nodes_after) == (0, change.nodes_after)
        (after,) = onnxruntime.InferenceSession(path).run(None, inputs)
        np.testing.assert_allclose(after, before, atol=1e-5)


def test_a_guard_that_hides_nan_is_dropped_and_other_choices_stay(tmp_path):
    def build(source):
        node = onnx.helper.make_node
        nodes = [
            node(source, ["x"], ["p"], "p"),
            node("IsNaN", ["p"], ["bad"], "bad"),
            node("Where", ["bad", "zero", "p"], ["y"], "guard"),
        ]
        value = onnx.helper.make_tensor_value_info
        zero = onnx.numpy_helper.from_array(np.zeros((), np.float32), "zero")
        x, y = (value(n, onnx.TensorProto.FLOAT, [2, 3]) for n in "xy")
        made = onnx.helper.make_graph(nodes, "g", [x], [y], [zero])
        onnx.save(onnx.helper.make_model(made, opset_imports=[onnx.helper.make_opsetid("", 20)]), tmp_path / "m.onnx")
        return optimize.optimize(tmp_path / "m.onnx", ["drop_nan_guards"])[0]

    assert build("Softmax").changed == 1
    change = build("Sqrt")
    assert change.changed == 0
    assert "guard" in change.notes[0]


def test_an_unknown_pass_and_a_failing_pass_are_named(tmp_path, monkeypatch):
    onnx.save(onnx.ModelProto(), tmp_path / "m.onnx")
    with pytest.raises(GraphError, match="fold_constants"):
        optimize.optimize(tmp_path / "m.onnx", ["nonesuch"])
    monkeypatch.setattr(registry.load("sdtrt.graph.passes", "drop_nan_guards"), "apply", lambda model: 1 / 0)
    with pytest.raises(GraphError, match="drop_nan_guards failed"):
        optimize.optimize(tmp_path / "m.onnx", ["drop_nan_guards"])


class Fixed(torch.nn.Module):
    def forward(self, x):
        return (torch.stack([x[i] for i in range(x.shape[0])]),)


class Untraceable(torch.nn.Module):
    def forward(self, x):
        return (x if float(x.sum()) > 0 else -x,)


@pytest.mark.parametrize(("module", "slug"), [(Fixed(), "export-static"), (Untraceable(), "export-failed")])
def test_what_cannot_be_traced_is_an_error(tmp_path, module, slug):
    tensor = TensorSpec("x", ("B", 4), "float32")
    spec = ComponentSpec("part", "part", (tensor,), (tensor,), "float32", load=lambda folder: module)
    with pytest.raises(ExportError) as caught:
        onnx_export.capture(spec, module, [ShapeProfile.parse("B=1:2:4,H=8,W=8")], 20, tmp_path)
    assert caught.value.slug == slug


def test_a_half_precision_unet_of_sdxl_has_one_type_per_operator(models, cache, tmp_path):
    """Its pooled embedding meets float32 sines in a Concat: torch promotes there, ONNX refuses."""
    folder = models["sdxl"]
    family = family_of(folder)
    spec = family.components(folder, "fp16")["unet"]
    with shared_exports.shared(cache / "exports"):
        path = onnx_export.capture(spec, spec.load(folder), [ShapeProfile.parse(tiny_random.STATIC)], 20, tmp_path)
    onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
