"""Both kinds of graph passes keep one contract: ONNX passes and those over traced graphs."""

import onnx
import pytest
import torch

from sdtrt import engines, registry
from sdtrt.engines.backends.inductor import optimize as traced
from sdtrt.engines.backends.inductor.pass_context import Context
from sdtrt.errors import ConfigError, GraphError
from sdtrt.graph import optimize

REGISTRIES = (optimize.PASSES, traced.PASSES)
ALL = [(folder, name) for folder in REGISTRIES for name in registry.names(folder)]


class Small(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = torch.nn.Linear(16, 16), torch.nn.Linear(16, 16)

    def forward(self, x):
        return (torch.nn.functional.gelu(self.first(x)) + self.second(x),)


def small(folder):
    """A graph of the kind that the passes of `folder` take, and what else they take."""
    if folder == traced.PASSES:
        import traced_graphs

        return traced_graphs.traced(Small(), x=torch.randn(64, 16)), (Context(torch.device("cpu"), {"first": 1.0}),)
    node = onnx.helper.make_node("Neg", ["x"], ["y"])
    values = [onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, [2]) for n in "xy"]
    return onnx.helper.make_model(onnx.helper.make_graph([node], "g", values[:1], values[1:])), ()


@pytest.mark.parametrize(("folder", "name"), ALL)
def test_every_pass_has_a_version_says_what_it_does_and_is_idempotent(folder, name):
    module = registry.load(folder, name)
    assert module.VERSION >= 1
    assert module.__doc__
    assert module.apply.__doc__
    graph, context = small(folder)
    if folder == traced.PASSES and context[0].unmet(module.REQUIRES):
        return
    once = module.apply(graph, *context)
    again = module.apply(once.model, *context)
    assert again.changed == 0 or "Not idempotent" in module.apply.__doc__


def test_the_defaults_of_inductor_are_all_its_passes():
    assert sorted(engines.load("inductor").passes) == list(registry.names(traced.PASSES))


@pytest.mark.parametrize("name", traced.DEFAULTS)
def test_a_recipe_may_leave_out_any_pass(name):
    graph, context = small(traced.PASSES)
    passes = [p for p in traced.DEFAULTS if p != name]
    _, changes = traced.optimize(graph, passes, *context)
    assert [c.name for c in changes] == passes
    assert all(c.changed or c.notes for c in changes)


def test_why_a_pass_did_not_fire():
    graph, _ = small(traced.PASSES)
    _, changes = traced.optimize(graph, traced.DEFAULTS, Context(torch.device("cpu")))
    notes = {c.name: c.notes for c in changes}
    assert notes["fuse_linears"] == ()
    assert notes["layer_norm"] == ("needs a GPU",)
    assert notes["geglu"] == ("only in fp8",)


@pytest.mark.parametrize(
    ("backend", "old", "new"),
    [("inductor", "fast_gelu", "tanh_gelu"), ("onnxruntime", "fp32_islands", "fp32_attention_scores")],
)
def test_a_former_name_is_an_error_that_names_the_new_one(backend, old, new):
    chosen = engines.load(backend)
    with pytest.raises(GraphError, match=new):
        optimize.versions([old], chosen.passes_package, chosen.renamed_passes)


def test_a_former_option_is_an_error_that_names_the_pass():
    with pytest.raises(ConfigError, match="split_prompt"):
        engines.load("inductor").check_options({"prompt_once": False})


def test_a_pass_that_fails_is_named(monkeypatch):
    graph, context = small(traced.PASSES)

    def fail(graph, context):
        raise ValueError("no weight")

    monkeypatch.setattr(registry.load(traced.PASSES, "fuse_linears"), "apply", fail)
    with pytest.raises(GraphError, match="the pass fuse_linears failed"):
        traced.optimize(graph, ["fuse_linears"], *context)


def test_versions_are_part_of_the_key():
    assert optimize.versions(["fp8"], traced.PASSES) == "fp8@1"
    with pytest.raises(GraphError, match="fuse_linears"):
        optimize.versions(["nothing"], traced.PASSES)
