"""Costs of a traced graph of torch: by the formulas that ONNX graphs are priced by."""

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from sdtrt.costs import fx_costs


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.GroupNorm(2, 8)
        self.conv = nn.Conv2d(8, 16, 3, padding=1, bias=False)
        self.out = nn.Linear(16, 4, bias=False)

    def forward(self, x):
        return self.out(self.conv(nn.functional.silu(self.norm(x))).permute(0, 2, 3, 1))


def priced(module, **inputs):
    with torch.no_grad():
        program = torch.export.export(module, (), kwargs=inputs, strict=False)
    graph, owned = program.graph_module, program.graph_signature.inputs_to_parameters
    names = [n.name for n in graph.graph.find_nodes(op="placeholder")]
    values = iter(inputs.values())
    given = {n: program.state_dict[owned[n]] if n in owned else next(values) for n in names}
    return fx_costs(graph, given, frozenset(owned))


def test_products_cost_what_torch_counts():
    block, x = Block(), torch.randn(2, 8, 6, 6)
    nodes = priced(block, x=x).nodes
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        block(x)
    assert sum(n.flops for n in nodes.values() if n.kind in ("conv", "gemm")) == counter.get_total_flops()


def test_nodes_speak_onnx_and_know_their_module():
    nodes = priced(Block(), x=torch.randn(2, 8, 6, 6)).nodes
    found = {n.op: (n.kind, n.module) for n in nodes.values()}
    assert found["GroupNormalization"] == ("norm", "norm")
    assert found["Conv"] == ("conv", "conv")
    assert found["Swish"] == ("pointwise", "(top)")


def test_every_weight_is_paid_once_and_views_move_nothing():
    block = Block()
    nodes = priced(block, x=torch.randn(2, 8, 6, 6)).nodes
    assert sum(n.weight_bytes for n in nodes.values()) == sum(p.nbytes for p in block.parameters())
    assert [n.bytes_moved for n in nodes.values() if n.op == "Transpose"] == [0]


def test_who_reads_a_view_of_a_weight_pays_for_that_part_and_nobody_pays_twice():
    class Halves(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.randn(8, 4))

        def forward(self, x):
            first, second = self.weight.split([2, 6])
            zeros = torch.zeros_like(self.weight)
            return x @ first.t(), x @ second.t(), x @ self.weight.t(), x.sum() + zeros

    paid = [n.weight_bytes for n in priced(Halves(), x=torch.randn(3, 4)).nodes.values() if n.kind == "gemm"]
    assert paid == [4 * 2 * 4, 4 * 6 * 4, 0]
    nodes = priced(Halves(), x=torch.randn(3, 4)).nodes
    assert sum(n.weight_bytes for n in nodes.values()) == 4 * 8 * 4


def test_an_operator_that_is_not_known_has_no_cost_and_is_told():
    class Odd(nn.Module):
        def forward(self, x):
            return torch.cumsum(x, 0) + 1

    costs = priced(Odd(), x=torch.randn(4))
    assert costs.nodes["cumsum"].flops is None
    assert costs.notes == ("1 nodes have operators without a known cost: cumsum",)
