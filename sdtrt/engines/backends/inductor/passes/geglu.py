"""A linear layer whose halves are multiplied, one through GELU, and the rounding for the layer behind it: one kernel.

This is diffusers' GEGLU, the widest layer of a transformer block. See gated_kernel.py for why.
"""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, NamedTuple

from sdtrt.engines.backends.inductor.graph_edits import fp8_linears
from sdtrt.engines.backends.inductor.graph_edits.fp8_quantize import LARGEST, quant_scale, round_weight
from sdtrt.engines.backends.inductor.pass_context import Context
from sdtrt.engines.backends.inductor.trace import Graph, Node
from sdtrt.graph.pass_result import Result

if TYPE_CHECKING:
    from torch import Tensor

VERSION = 1
REQUIRES = ("fp8", "hopper")


class _Gate(NamedTuple):
    """`product` is value * gelu(gate), of the halves of `linear`, for `reader` alone."""

    linear: Node
    product: Node
    reader: Node


def apply(graph: Graph, context: Context) -> Result[Graph]:
    """Replace all whose both layers were calibrated; returns how many."""
    if "fp8" not in context.following:
        return Result(graph, 0, ("needs the pass fp8 after it, which reads the rounded result",))
    import torch

    from sdtrt.engines.backends.inductor.kernels.geglu import TILE

    changed = 0
    for node in graph.calls(torch.ops.aten.mul.Tensor):
        if (found := _match(node)) is None:
            continue
        inside, behind = (fp8_linears.calibrated_amax(graph, n, context.ranges) for n in (found.linear, found.reader))
        if inside is None or behind is None or node.meta["val"].shape[-1] % TILE:
            continue
        with graph.nodes.inserting_before(node):
            made = _gated(graph, found, inside / LARGEST, behind / LARGEST, TILE)
        graph.replace(node, made)
        changed += 1
    graph.finish()
    return Result(graph, changed)


def _match(product: Node) -> _Gate | None:
    import torch

    aten = torch.ops.aten
    gelu: Node = next((a for a in product.args if getattr(a, "target", None) is aten.gelu.default), None)
    value: Node = next((a for a in product.args if a is not gelu), None)
    if gelu is None or not hasattr(value, "args") or len(product.users) != 1 or len(gelu.users) != 1:
        return None
    gate, (reader,) = gelu.args[0], product.users
    if not all(n.target is operator.getitem and len(n.users) == 1 for n in (value, gate)):
        return None
    halves = value.args[0]
    halved = "chunk" in str(halves.target) or "split" in str(halves.target)
    if gate.args[0] is not halves or (value.args[1], gate.args[1]) != (0, 1) or not halved or len(halves.users) != 2:
        return None
    linear = halves.args[0]
    both = (linear.target, reader.target)
    whole = linear.meta["val"].shape[-1] == 2 * product.meta["val"].shape[-1] and len(linear.users) == 1
    return _Gate(linear, product, reader) if both == (aten.linear.default,) * 2 and whole else None


def by_tiles(rows: Tensor, tile: int) -> Tensor:
    """The rows of the first half and the second, so many of each in turns."""
    return rows.reshape(2, -1, tile, *rows.shape[1:]).transpose(0, 1).reshape(rows.shape)


def _gated(graph: Graph, found: _Gate, inside: float, behind: float, tile: int) -> Node:
    import torch

    linear, value = found.linear, found.product.meta["val"]
    weight = linear.args[1].name
    matrix, channels = round_weight(by_tiles(graph.weights[weight], tile))
    bias = linear.args[2].name if len(linear.args) > 2 else None
    operands = (
        fp8_linears.quantized_rows(graph, linear.args[0], inside, as_fp8=False),
        graph.constant(f"{weight}_fp8", matrix),
        graph.constant(f"{weight}_input", inside),
        graph.constant(f"{weight}_channels", channels),
        graph.constant(f"{bias}_by_tiles", by_tiles(graph.weights[bias], tile)) if bias else None,
        quant_scale(graph, found.product, behind),
    )
    made = graph.call(linear, torch.ops.sdtrt.gated.default, *operands)
    return graph.call(linear, torch.ops.aten.reshape.default, made, list(value.shape))
