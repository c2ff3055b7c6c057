"""diffusers' GEGLU, the widest layer of a transformer block, as one Triton kernel that quantizes for the next layer.

kernels/geglu.py has the reasons.
"""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, NamedTuple

from sdtrt.engines.backends.inductor.graph_edits import fp8_linears
from sdtrt.engines.backends.inductor.graph_edits.fp8_quantize import LARGEST, quant_scale, round_weight
from sdtrt.engines.backends.inductor.pass_context import Context
from sdtrt.engines.backends.inductor.trace import Graph, Node
from sdtrt.graph.run_passes import Result

if TYPE_CHECKING:
    from torch import Tensor

VERSION = 1
REQUIRES = ("fp8", "hopper")


class _Geglu(NamedTuple):
    """value * gelu(gate) of the halves of `linear`, which `reader` alone reads."""

    linear: Node
    reader: Node


def apply(graph: Graph, context: Context) -> Result[Graph]:
    """Replace every GEGLU of which both layers were calibrated."""
    if "fp8" not in context.following:
        return Result(graph, 0, ("needs the pass fp8 after it, which reads the rounded result",))
    import torch

    from sdtrt.engines.backends.inductor.kernels.geglu import TILE

    def fuse(node: Node) -> Node | None:
        if (layers := _match(node)) is None:
            return None
        amax, output_amax = (fp8_linears.calibrated_amax(graph, layer, context.ranges) for layer in layers)
        if amax is None or output_amax is None or node.meta["val"].shape[-1] % TILE:
            return None
        return _geglu(graph, node, layers.linear, amax / LARGEST, output_amax / LARGEST)

    return Result(graph, graph.replace_calls(torch.ops.aten.mul.Tensor, fuse))


def _match(product: Node) -> _Geglu | None:
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
    return _Geglu(linear, reader) if both == (aten.linear.default,) * 2 and whole else None


def by_tiles(rows: Tensor, tile: int) -> Tensor:
    """The rows of both halves, alternating: `tile` rows of the first half, `tile` rows of the second, and so on."""
    return rows.reshape(2, -1, tile, *rows.shape[1:]).transpose(0, 1).reshape(rows.shape)


def _geglu(graph: Graph, node: Node, linear: Node, scale: float, output_scale: float) -> Node:
    import torch

    from sdtrt.engines.backends.inductor.kernels.geglu import TILE

    weight = linear.args[1].name
    matrix, channels = round_weight(by_tiles(graph.weights[weight], TILE))
    bias = linear.args[2].name if len(linear.args) > 2 else None
    operands = (
        fp8_linears.quantized_rows(graph, linear.args[0], scale, as_fp8=False),
        graph.constant(f"{weight}_fp8", matrix),
        graph.constant(f"{weight}_input", scale),
        graph.constant(f"{weight}_channels", channels),
        graph.constant(f"{bias}_by_tiles", by_tiles(graph.weights[bias], TILE)) if bias else None,
        quant_scale(graph, node, output_scale),
    )
    gated = graph.call(linear, torch.ops.sdtrt.gated.default, *operands)
    return graph.call(linear, torch.ops.aten.reshape.default, gated, list(node.meta["val"].shape))
