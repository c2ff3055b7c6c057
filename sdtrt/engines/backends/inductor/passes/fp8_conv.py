"""3x3 convolutions in FP8, by our kernel: it was faster than cuDNN in half precision at all sizes of SD and SDXL.

On an H200 it reached 800 to 1340 TFLOP/s with 16 rows, where cuDNN reached 480 to 730
(benchmarks/results/h200_kernels.json). What is in front, GroupNorm or upsampling, rounds as it writes, border of zeros
and all.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sdtrt.engines.backends.inductor.graph_edits.fp8_eligibility import LEAST_CHANNELS
from sdtrt.engines.backends.inductor.graph_edits.fp8_quantize import (
    LARGEST,
    bits,
    bordered,
    constant,
    device_of,
    round_weight,
)
from sdtrt.engines.backends.inductor.graph_edits.image_nodes import in_memory
from sdtrt.engines.backends.inductor.pass_context import Context
from sdtrt.engines.backends.inductor.trace import Graph
from sdtrt.graph.pass_result import Result

if TYPE_CHECKING:
    Node = Any  # of torch.fx, whose own types say too little of arguments

VERSION = 1
REQUIRES = ("fp8", "hopper")


_DEFAULTS: tuple[Any, ...] = (None, None, None, [1, 1], [0, 0], [1, 1], 1)


def apply(graph: Graph, context: Context) -> Result[Graph]:
    """Rewrite the convolutions that were calibrated; returns how many."""
    import torch

    from sdtrt.engines.backends.inductor.kernels.conv import conv3x3

    del conv3x3  # importing it registered the operation
    changed = 0
    for node in list(graph.nodes.find_nodes(op="call_function", target=torch.ops.aten.conv2d.default)):
        found = _calibrated(graph, node, context.ranges)
        if found is None:
            continue
        with graph.nodes.inserting_before(node):
            made = _convolution(graph, node, found / LARGEST)
        graph.replace(node, made)
        changed += 1
    graph.finish()
    return Result(graph, changed)


def _calibrated(graph: Graph, node: Node, amax: Mapping[str, float]) -> float | None:
    """The input's largest magnitude, when the layer was calibrated and is one that the kernel computes."""
    given: tuple[Any, ...] = node.args
    _, weight, _, stride, padding, dilation, groups = (*given, *_DEFAULTS[len(given) :])
    if weight.name not in graph.weights or len(weight.users) != 1:
        return None
    layer = graph.sources[weight.name][0][0].rpartition(".")[0]
    columns, channels, *kernel = tuple(graph.weights[weight.name].shape)
    plain = (list(stride), list(padding), list(dilation), groups, kernel) == ([1, 1], [1, 1], [1, 1], 1, [3, 3])
    suits = min(columns, channels) >= LEAST_CHANNELS and channels % 16 == 0 and columns % 16 == 0
    return amax.get(layer) if plain and suits else None


def _convolution(graph: Graph, node: Node, scale: float) -> Node:
    import torch

    source, weight = node.args[:2]
    bias = node.args[2] if len(node.args) > 2 else None
    columns = node.meta["val"].shape[1]
    # (K, C, 3, 3) to (K, 3 * 3 * C)
    matrix, channels = round_weight(graph.weights[weight.name].permute(0, 2, 3, 1).reshape(columns, -1))
    operands = (
        _bordered(graph, source, scale),
        constant(graph, f"{weight.name}_fp8", matrix),
        constant(graph, f"{weight.name}_input", torch.tensor(scale, device=device_of(graph))),
        constant(graph, f"{weight.name}_channels", channels),
    )
    return graph.call(node, torch.ops.sdtrt.conv3x3.default, *operands, bias, node.meta["val"].dtype)


def _bordered(graph: Graph, source: Node, scale: float) -> Node:
    """The input's bits in FP8 with a row and a column of zeros behind it, (N, C, H + 1, W + 1)."""
    import torch

    if (made := bordered(graph, source, scale)) is not None:
        return made
    narrow = bits(graph, source, scale)
    made = graph.call(source, torch.ops.aten.constant_pad_nd.default, narrow, [0, 1, 0, 1], 0)
    value = source.meta["val"]
    images, wide, height, width = value.shape
    return in_memory(graph, made, value.new_empty((images, wide, height + 1, width + 1)))
