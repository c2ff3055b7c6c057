"""Linear layers that compute in FP8: which ones do, and their inputs as rows of FP8."""

from collections.abc import Mapping
from functools import partial
from math import prod

from sdtrt.engines.backends.inductor.graph_edits.fp8_quantize import cast_fp8, fuse_quantize
from sdtrt.engines.backends.inductor.trace import Graph, Node

# Fewer rows than this are bound by reading the weight.
LEAST_ROWS = 64


def calibrated_amax(graph: Graph, node: Node, ranges: Mapping[str, float]) -> float | None:
    """The largest input magnitude, when all layers that `node` fuses are calibrated and the sizes suit FP8."""
    weight, rows = node.args[1].name, prod(node.meta["val"].shape[:-1])
    if weight not in graph.weights or len(node.args[1].users) != 1:
        return None
    layers = [parameter.rpartition(".")[0] for parameter, _ in graph.sources[weight]]
    columns, inner = graph.weights[weight].shape
    if not layers or not all(layer in ranges for layer in layers) or columns % 16 or inner % 16:
        return None
    return max(ranges[layer] for layer in layers) if rows >= LEAST_ROWS else None


def quantized_rows(graph: Graph, source: Node, scale: float, as_fp8: bool = True) -> Node:
    """The input of a linear layer, quantized to FP8.

    Args:
        graph: the graph, whose insertion point lies after `source`.
        source: the input, (..., K) in half precision.
        scale: the value of one FP8 unit.
        as_fp8: whether the type has to be float8_e4m3fn; otherwise it may be uint8 with the same bits.

    Returns:
        (rows, K).
    """
    import torch

    aten, value, step = torch.ops.aten, source.meta["val"], partial(graph.call, source)
    shape = [prod(value.shape[:-1]), value.shape[-1]]
    if (bits := fuse_quantize(graph, source, scale)) is None:
        # An image of one row may still be stored channel by channel, which no matmul takes.
        return step(aten.contiguous.default, step(aten.reshape.default, cast_fp8(graph, source, scale), shape))
    rows = step(aten.reshape.default, bits, shape)
    return step(aten.view.dtype, rows, torch.float8_e4m3fn) if as_fp8 else rows
