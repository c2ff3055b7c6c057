"""Self-attention of pixels in FP8: a Triton kernel, which reads the FP8 results of the matmuls before it.

The matmuls write queries, keys and values in FP8, which is half as much, and values transposed, as tensor cores read
them. Their scales need not be calibrated: FP8 is a floating-point format, as exact at a
hundredth of its largest number as there. So they are estimated from the layer's weights and largest input. Queries and
keys may be ten times as large, both at once, before scores exceed half precision; those of the embedded model are two
to three times as large. See kernels/self_attention.py for the rest.
"""

from __future__ import annotations

import operator
from functools import partial
from math import e, log2, sqrt
from typing import TYPE_CHECKING, NamedTuple

from sdtrt.engines.backends.inductor.graph_edits.attention_nodes import attentions
from sdtrt.engines.backends.inductor.graph_edits.fp8_linears import calibrated_amax, quantized_rows
from sdtrt.engines.backends.inductor.graph_edits.fp8_quantize import LARGEST, round_matrix
from sdtrt.engines.backends.inductor.pass_context import Context
from sdtrt.engines.backends.inductor.trace import Graph, Node
from sdtrt.graph.run_passes import Result

if TYPE_CHECKING:
    from torch import Tensor

VERSION = 1
REQUIRES = ("fp8", "hopper")


# With 256 pixels, matmuls included, on an H200: 14.6 µs instead of 14.9 in half precision at 2 rows, 48 instead of 58
# at 16 (benchmarks/h200_kernels.py). Whole images with it were not measured.
LEAST_PIXELS = 1024
# Root mean square that results should have, in units: their largest is then far from 448, and no score of a query and
# a key near 65504, the largest number of half precision.
_MEAN = 2.0
# A largest input is taken for so many root mean squares; of a LayerNorm's outputs it is 4 to 50.
_CREST = 8.0


class _Attention(NamedTuple):
    """`node` is an attention of (images, heads, pixels, size) to itself, all three of `linear`."""

    node: Node
    linear: Node
    shape: tuple[int, int, int, int]
    scale: float


def apply(graph: Graph, context: Context) -> Result[Graph]:
    """Replace the attentions whose layer was calibrated."""
    import torch

    from sdtrt.engines.backends.inductor.kernels.self_attention import SIZES

    aten, changed = torch.ops.aten, 0
    for node, result in list(attentions(graph)):
        found = _match(node, result)
        inside = calibrated_amax(graph, found.linear, context.ranges) if found else None
        if found is None or inside is None or found.shape[-1] not in SIZES:
            continue
        with graph.nodes.inserting_before(node):
            made = graph.call(node, aten.transpose.int, _attention(graph, found, inside), 1, 2)
        graph.replace(result, made)
        changed += 1
    graph.finish()
    return Result(graph, changed)


def _match(node: Node, result: Node) -> _Attention | None:
    if result.meta["val"].dim() != 4 or len(node.users) > 1:
        return None
    _, _, pixels, size = shape = tuple(result.meta["val"].shape)
    linears = {_part(a, i, shape) for i, a in enumerate(node.args[:3])}
    linear: Node = linears.pop()
    if linears or linear is None:
        return None
    suits = pixels >= LEAST_PIXELS and pixels % 16 == 0 and len(linear.args) == 2
    return _Attention(result, linear, shape, node.kwargs.get("scale") or 1 / sqrt(size)) if suits else None


def _part(node: Node, index: int, shape: tuple[int, ...]) -> Node | None:
    """The layer whose third `index` the tensor is, seen through what divides it into heads."""
    import torch

    aten = torch.ops.aten
    ways = (aten.transpose.int, aten.view.default, operator.getitem, aten.split_with_sizes.default)
    chain = [node]
    for _ in ways:
        chain.append(chain[-1].args[0] if getattr(chain[-1], "args", ()) else None)
    third, parts, linear = chain[2], chain[3], chain[4]
    if tuple(getattr(n, "target", None) for n in chain[:-1]) != ways or linear.target is not aten.linear.default:
        return None
    alone = all(len(n.users) == 1 for n in chain[:3]) and len(parts.users) == 3 and len(linear.users) == 1
    equal = len(parts.args[1]) == 3 and len({*parts.args[1]}) == 1
    whole = tuple(node.meta["val"].shape) == shape and node.args[1:] == (1, 2) and third.args[1] == index
    return linear if alone and equal and whole else None


def _attention(graph: Graph, found: _Attention, inside: float) -> Node:
    import torch

    from sdtrt.engines.backends.inductor.kernels.self_attention import PER_OCTAVE

    node, name = found.node, found.linear.args[1].name
    scale = inside / LARGEST
    with graph.nodes.inserting_before(found.linear):
        rows = quantized_rows(graph, found.linear.args[0], scale)
    parts = graph.weights[name].float().chunk(3)
    scales = [_dequant_scale(part, inside) for part in parts]
    input_scale = graph.constant(f"{name}_input", scale)
    step = partial(_matmul, graph, node)
    *queries_and_keys, values = (part / s for part, s in zip(parts, scales, strict=True))
    both, both_scale = _rounded(graph, f"{name}_qk", torch.cat(queries_and_keys))
    last, last_scale = _rounded(graph, f"{name}_v", values)
    qk = step(rows, both, input_scale, both_scale)  # (images * pixels, 2 * heads * size)
    vt = step(last, rows, last_scale, input_scale)  # (heads * size, images * pixels)
    codes = PER_OCTAVE * log2(e) * found.scale * scales[0] * scales[1]
    return graph.call(
        node,
        torch.ops.sdtrt.self_attention.default,
        qk,
        vt,
        graph.constant(f"{name}_codes", codes),
        graph.constant(f"{name}_unit", scales[2]),
        *found.shape[:2],
        node.meta["val"].dtype,
    )


def _dequant_scale(weight: Tensor, inside: float) -> float:
    """The value of one FP8 unit of the results of these rows, if inputs were independent of each other."""
    expected = weight.square().sum(1).mean().sqrt() * inside / _CREST
    return max(float(expected) / _MEAN, 1e-30)


def _rounded(graph: Graph, name: str, weight: Tensor) -> tuple[Node, Node]:
    matrix, scale = round_matrix(weight)
    return graph.constant(f"{name}_fp8", matrix), graph.constant(f"{name}_of", scale)


def _matmul(graph: Graph, node: Node, left: Node, right: Node, *units: Node) -> Node:
    """`left @ right.T` in FP8."""
    import torch

    aten, fp8e4 = torch.ops.aten, torch.float8_e4m3fn
    transposed = graph.call(node, aten.t.default, right)
    return graph.call(node, aten._scaled_mm.default, left, transposed, *units, None, None, fp8e4, True)
