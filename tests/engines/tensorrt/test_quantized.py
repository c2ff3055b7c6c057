"""Where Q and DQ stand in an exported U-Net; what TensorRT's parser and attention fusion ask of it; parity."""

import shutil

import onnx
import onnxruntime as ort
import pytest
import small_checkpoint
import torch
from onnx import numpy_helper
from torch import nn
from trt import bindings, parser_facts, use

from sdtrt import config, engines
from sdtrt import models as families
from sdtrt.engines import EngineContext, Source, accuracy
from sdtrt.export import onnx_export, quantized_layers
from sdtrt.graph import optimize
from sdtrt.shapes.sample_inputs import sample_inputs
from sdtrt.shapes.spec import ShapeProfile

RELEASES = [(10, 12), (10, 16), (11, 0), (11, 4)]
PROFILE = ShapeProfile.parse("B=1:1:2,H=64,W=64,T=77")
BLOCK = "down_blocks.0.attentions.0.transformer_blocks.0"


class Quantized:
    """The tiny U-Net, quantized by ranges that one run has, exported and optimized."""

    def __init__(self, checkpoint, scheme, folder):
        self.spec = families.family_of(checkpoint).components(checkpoint, scheme)["unet"]
        module = self.spec.load(checkpoint).float()
        self.inputs = sample_inputs(self.spec, PROFILE.sizes("opt"))
        kinds = (nn.Linear, nn.Conv2d) if scheme == "int8" else (nn.Linear,)
        linear = {n: m for n, m in module.inner.named_modules() if isinstance(m, kinds)}
        self.kept = {n for n in linear if any(k in n for k in config.Calibration().exclude)}
        self.names = set(linear) - self.kept
        self.eager, ranges = self.outputs_of(module, self.names, lambda values, _: float(values.abs().max()))
        module = module.half()
        quantized_layers.insert(module.inner, {n: quantized_layers.Scales(r) for n, r in ranges.items()}, scheme)
        self.path = onnx_export.capture(self.spec, module, [PROFILE], 20, folder)
        self.changes = optimize.optimize(self.path, ("fold_constants", "drop_nan_guards"))
        self.model = onnx.load(self.path, load_external_data=False)
        self.producer = {o: n for n in self.model.graph.node for o in n.output}
        self.module = module.float()

    def outputs_of(self, module, names, pick):
        """The U-Net's output, and what `pick(input, output)` says of each of the layers."""
        found = {}
        hooks = [
            module.inner.get_submodule(n).register_forward_hook(
                lambda _, given, out, n=n: found.__setitem__(n, pick(given[0], out))
            )
            for n in names
        ]
        with torch.inference_mode():
            out = module(**{n: t.float() if t.is_floating_point() else t for n, t in self.inputs.items()})
        for hook in hooks:
            hook.remove()
        return out, found

    def of_layer(self, name):
        """The node that does a layer's work."""
        found = [
            n
            for n in self.model.graph.node
            if n.op_type in ("MatMul", "Conv", "Gemm") and ".".join(n.name.split("/")[1:-1]) == name
        ]
        assert len(found) == 1, (name, found)
        return found[0]

    def above(self, tensor, *kinds):
        """The tensor that reaches `tensor` through nodes of these kinds, from the last to the first; None otherwise."""
        for kind in kinds:
            node = self.producer.get(tensor)
            if node is None or node.op_type != kind:
                return None
            tensor = node.input[0]
        return tensor

    def run(self, *tensors):
        """Values of tensors on ONNX Runtime."""
        model = onnx.load(self.path)
        model.graph.output.extend(onnx.ValueInfoProto(name=t) for t in tensors if t != self.spec.outputs[0].name)
        session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        return [
            torch.from_numpy(a).float() for a in session.run(tensors, {n: t.numpy() for n, t in self.inputs.items()})
        ]


@pytest.fixture(params=tuple(bindings.RELEASES))
def release(request):
    return request.param


@pytest.fixture(scope="module", params=["int8", "fp8"])
def scheme(request):
    return request.param


@pytest.fixture(scope="module")
def unet(scheme, models, tmp_path_factory):
    folder = tmp_path_factory.mktemp(scheme)
    return Quantized(small_checkpoint.make(models["sd2"], folder / "model"), scheme, folder / "work")


def weight_path(node):
    return (
        ("DequantizeLinear", "QuantizeLinear")
        if node.op_type == "Conv"
        else (*("Transpose", "DequantizeLinear", "QuantizeLinear"),)
    )


def test_both_operands_of_every_layer_that_is_meant_pass_through_q_and_dq(unet):
    for name in unet.names:
        node = unet.of_layer(name)
        assert unet.above(node.input[0], "DequantizeLinear", "QuantizeLinear") is not None, name
        assert unet.above(node.input[1], *weight_path(node)) == f"{name}.weight", name


def test_no_other_q_and_dq_exist(unet):
    """One pair for each weight, and one for each tensor that layers read, however many read it."""
    pairs = [n for n in unet.model.graph.node if n.op_type == "QuantizeLinear"]
    weights = {n.input[0] for n in pairs if n.input[0].endswith(".weight")}
    assert weights == {f"{name}.weight" for name in unet.names}
    read = {unet.above(unet.of_layer(n).input[0], "DequantizeLinear", "QuantizeLinear") for n in unet.names}
    assert {n.input[0] for n in pairs} - weights == read
    assert len([n for n in unet.model.graph.node if n.op_type == "DequantizeLinear"]) == len(pairs)
    for name in unet.kept:
        assert "DequantizeLinear" not in {
            getattr(unet.producer.get(i), "op_type", "") for i in unet.of_layer(name).input
        }


def test_query_key_and_value_share_one_quantized_input(unet):
    """So that TensorRT can make one product of the three."""
    assert len({unet.of_layer(f"{BLOCK}.attn1.{part}").input[0] for part in ("to_q", "to_k", "to_v")}) == 1
    assert len({unet.of_layer(f"{BLOCK}.attn2.{part}").input[0] for part in ("to_k", "to_v")}) == 1


def test_scales_are_constants_of_the_graphs_type(unet, scheme):
    constants = {t.name: t for t in unet.model.graph.initializer}
    zero = {"int8": onnx.TensorProto.INT8, "fp8": onnx.TensorProto.FLOAT8E4M3FN}[scheme]
    for node in unet.model.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            assert constants[node.input[1]].data_type == onnx.TensorProto.FLOAT16
            assert constants[node.input[2]].data_type == zero
            if constants[node.input[2]].data_location != onnx.TensorProto.EXTERNAL:
                assert not numpy_helper.to_array(constants[node.input[2]]).astype("float32").any()  # symmetric


def test_attention_keeps_the_form_that_tensorrt_fuses(unet):
    sites = parser_facts.attentions(unet.model)
    assert len(sites) == small_checkpoint.ATTENTIONS
    assert [s for s in sites if s.problem] == []
    assert {s.scale for s in sites} == {"query and key"}
    assert not [n.name for n in unet.model.graph.node if "/sdpa/" in n.name and n.op_type.endswith("quantizeLinear")]


@pytest.mark.parametrize("release", RELEASES, ids=str)
def test_every_operator_type_and_opset_is_documented(unet, release):
    assert parser_facts.refusals(unet.model, release) == []


def test_the_parser_check_knows_the_types(unet, scheme):
    types = parser_facts.types(unet.model)
    held = {types[n.input[0]] for n in unet.model.graph.node if n.op_type == "DequantizeLinear"}
    assert held == {{"int8": "INT8", "fp8": "FP8"}[scheme]}


def test_weights_keep_their_names_and_are_not_folded(unet):
    """A LoRA or a refit finds a weight by the parameter's name."""
    names = {t.name for t in unet.model.graph.initializer}
    assert {f"{n}.weight" for n in unet.names | unet.kept} <= names


def test_layers_compute_in_onnx_what_they_compute_in_pytorch(unet):
    """Each on its own input: in the whole, a value that rounds the other way is amplified by every layer."""
    nodes = {name: unet.of_layer(name) for name in unet.names}
    pairs = {n: (unet.above(v.input[0], "DequantizeLinear", "QuantizeLinear"), v.output[0]) for n, v in nodes.items()}
    tensors = list(dict.fromkeys(t for pair in pairs.values() for t in pair))
    values = dict(zip(tensors, unet.run(*tensors), strict=True))
    for name, node in nodes.items():
        layer, got = unet.module.inner.get_submodule(name), values[pairs[name][1]]
        expected = layer(values[pairs[name][0]])
        if layer.bias is not None and node.op_type == "MatMul":  # the node after it adds that
            expected = expected - layer.bias
        assert accuracy.worst_error((got,), (expected,)) < 2e-3, name


def test_tensorrts_double_builds_runs_and_times_it(unet, scheme, apis, cache, tmp_path):
    with use.tensorrt(bindings.NEWEST, cache):
        backend = engines.load("tensorrt")
        options = backend.check_options({})
        work = shutil.copytree(unet.path.parent, tmp_path / "work")
        backend.build(Source(unet.spec, unet.module, (PROFILE,), work / unet.path.name), options, tmp_path)
        engine = backend.load(tmp_path, EngineContext(unet.spec, (PROFILE,), options))
        got = engine(**unet.inputs)["out_sample"]
        plan = engine.profile(unet.inputs, PROFILE.sizes(), 1)
        engine.close()
    assert accuracy.worst_error((got,), (unet.eager[0],)) < accuracy.LIMITS[scheme][0]
    assert len([layer for layer in plan.layers if layer.kind == "attention"]) == small_checkpoint.ATTENTIONS


def test_the_whole_stays_near_to_eager(unet, scheme):
    error = accuracy.worst_error(tuple(unet.run(unet.spec.outputs[0].name)), unet.eager)
    assert 1e-3 < error < accuracy.LIMITS[scheme][0]
