"""The launches of really compiled code: of a tiny module, and of the bundle that the contract suite uses."""

import pytest
import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention
from traced_graphs import planned, traced

from sdtrt.engines.backends.inductor.profiling import timing

pytestmark = pytest.mark.usefixtures("one_thread")


class Tiny(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(32, 32)
        self.second = nn.Linear(32, 32, bias=False)

    def forward(self, x):
        y = self.first(x).sigmoid()
        return self.second(scaled_dot_product_attention(y, y, y))


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """(plan, function without arguments that runs the code)."""
    x = torch.randn(2, 4, 16, 32)
    return planned(traced(Tiny(), x=x), {"x": x}, tmp_path_factory.mktemp("tiny") / "tiny.inductor")


def test_launches_name_nodes_and_modules(compiled):
    layers = {layer.nodes[-1]: layer for layer in compiled[0].layers}
    assert layers["linear"].module == "first"
    assert layers["linear_1"].module == "second"
    assert layers["scaled_dot_product_attention"].kind == "attention"
    assert [layers[n].kind for n in ("linear", "sigmoid", "linear_1")] == ["gemm", "pointwise", "gemm"]


def test_costs_are_those_of_the_sizes(compiled):
    plan = compiled[0]
    layers = {layer.nodes[-1]: layer for layer in plan.layers}
    rows = 2 * 4 * 16
    assert layers["linear"].flops == rows * 32 * (2 * 32 + 1)
    assert layers["linear"].weight_bytes == 4 * (32 * 32 + 32)
    assert layers["linear"].bytes_moved == 4 * (2 * rows * 32 + 32 * 32 + 32)
    assert layers["scaled_dot_product_attention"].flops == 2 * 2 * 2 * 4 * 16 * 16 * 32
    assert plan.total_flops == sum(layer.flops for layer in plan.layers)
    assert plan.total_weight_bytes == 4 * (2 * 32 * 32 + 32)


def test_tensors_join_the_launches(compiled):
    layers = compiled[0].layers
    made = {"x"}
    for layer in layers:
        assert {t.name for t in layer.inputs} <= made
        made |= {t.name for t in layer.outputs}
        assert all(t.nbytes for t in (*layer.inputs, *layer.outputs))


def test_every_launch_is_timed(compiled):
    plan, run = compiled
    with torch.no_grad():
        timed, notes = timing.measure(run, plan.layers, torch.device("cpu"), 3)
    assert [len(layer.times_ms) for layer in timed] == [3] * len(plan.layers)
    assert notes == ()


@pytest.mark.parametrize("component", ["text_encoder", "unet"])
def test_a_bundle_accounts_for_all_work_and_time(bundles, component):
    plan = bundles("sd1", "inductor").plan(component)
    assert sum(layer.flops for layer in plan.layers) == plan.total_flops
    assert sum(layer.weight_bytes for layer in plan.layers) == plan.total_weight_bytes > 0
    assert all(layer.times_ms and layer.module for layer in plan.layers)
    assert not [note for note in plan.notes if "launch" in note and "prompt" not in note]


def test_products_are_single_nodes(bundles):
    """A library call's comment names all that led to its operands: only one of them is its own."""
    plan = bundles("sd1", "inductor").plan("unet")
    products = [layer for layer in plan.layers if layer.attributes["native"] == "extern"]
    assert len({layer.nodes for layer in products}) == len(products)
    assert {len(layer.nodes) for layer in products} == {1}
    costs = {node.name: node for node in plan.nodes}
    assert all(layer.flops == costs[layer.nodes[0]].flops for layer in products)
