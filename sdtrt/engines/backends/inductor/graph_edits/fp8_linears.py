"""Linear layers that compute in FP8: which ones do, and their inputs as rows of FP8."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from math import prod
from typing import TYPE_CHECKING, Any

from sdtrt.engines.backends.inductor.graph_edits.fp8_quantize import rounded, written
from sdtrt.engines.backends.inductor.trace import Graph

if TYPE_CHECKING:
    Node = Any  # of torch.fx, whose own types say too little of arguments

# Fewer rows than this are bound by reading the weight.
LEAST_ROWS = 64


def calibrated(graph: Graph, node: Node, amax: Mapping[str, float]) -> float | None:
    """The input's largest magnitude, when all layers that this one was made of were calibrated and the sizes suit."""
    weight, rows = node.args[1].name, prod(node.meta["val"].shape[:-1])
    if weight not in graph.weights or len(node.args[1].users) != 1:
        return None
    layers = [parameter.rpartition(".")[0] for parameter, _ in graph.sources[weight]]
    columns, inner = graph.weights[weight].shape
    if not layers or not all(layer in amax for layer in layers) or columns % 16 or inner % 16:
        return None
    return max(amax[layer] for layer in layers) if rows >= LEAST_ROWS else None


def rows_of(graph: Graph, source: Node, scale: float, numbers: bool = True) -> Node:
    """The input in FP8 as (rows, K); with `numbers` off it may be the bits, as uint8."""
    import torch

    aten, value, step = torch.ops.aten, source.meta["val"], partial(graph.call, source)
    shape = [prod(value.shape[:-1]), value.shape[-1]]
    if (made := written(graph, source, scale)) is None:
        # What was an image of one row may still lie channel by channel, and no product takes that.
        return step(aten.contiguous.default, step(aten.reshape.default, rounded(graph, source, scale), shape))
    rows = step(aten.reshape.default, made, shape)
    return step(aten.view.dtype, rows, torch.float8_e4m3fn) if numbers else rows
