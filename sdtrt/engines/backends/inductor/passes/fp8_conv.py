"""3x3 convolutions in FP8, by a Triton kernel that was faster than cuDNN in half precision at all sizes of SD and SDXL.

On an H200 it reached 800 to 1340 TFLOP/s with 16 rows, where cuDNN reached 480 to 730
(benchmarks/results/h200_kernels.json). The kernel that makes the input, GroupNorm or upsampling, quantizes it and adds
the border of zeros.
"""

from collections.abc import Mapping
from typing import Any

from sdtrt.engines.backends.inductor.graph_edits.fp8_eligibility import LEAST_CHANNELS
from sdtrt.engines.backends.inductor.graph_edits.fp8_quantize import (
    LARGEST,
    fuse_quantize_padded,
    quantize_fp8,
    round_weight,
)
from sdtrt.engines.backends.inductor.graph_edits.image_nodes import in_memory
from sdtrt.engines.backends.inductor.pass_context import Context
from sdtrt.engines.backends.inductor.trace import Graph, Node
from sdtrt.graph.run_passes import Result

VERSION = 1
REQUIRES = ("fp8", "hopper")


_DEFAULTS: tuple[Any, ...] = (None, None, None, [1, 1], [0, 0], [1, 1], 1)


def apply(graph: Graph, context: Context) -> Result[Graph]:
    """Replace the convolutions that were calibrated by the Triton kernel."""
    import torch

    from sdtrt.engines.backends.inductor.kernels import conv  # noqa: F401  its import registers the operator

    def quantize(node: Node) -> Node | None:
        amax = _calibrated_amax(graph, node, context.ranges)
        return None if amax is None else _conv3x3(graph, node, amax / LARGEST)

    return Result(graph, graph.replace_calls(torch.ops.aten.conv2d.default, quantize))


def _calibrated_amax(graph: Graph, node: Node, ranges: Mapping[str, float]) -> float | None:
    """The largest input magnitude, when the layer was calibrated and is one that the kernel computes."""
    arguments: tuple[Any, ...] = node.args
    _, weight, _, stride, padding, dilation, groups = (*arguments, *_DEFAULTS[len(arguments) :])
    if weight.name not in graph.weights or len(weight.users) != 1:
        return None
    layer = graph.sources[weight.name][0][0].rpartition(".")[0]
    columns, channels, *kernel = tuple(graph.weights[weight.name].shape)
    plain = (list(stride), list(padding), list(dilation), groups, kernel) == ([1, 1], [1, 1], [1, 1], 1, [3, 3])
    suits = min(columns, channels) >= LEAST_CHANNELS and channels % 16 == 0 and columns % 16 == 0
    return ranges.get(layer) if plain and suits else None


def _conv3x3(graph: Graph, node: Node, scale: float) -> Node:
    import torch

    source, weight = node.args[:2]
    bias = node.args[2] if len(node.args) > 2 else None
    columns = node.meta["val"].shape[1]
    # (K, C, 3, 3) to (K, 3 * 3 * C)
    matrix, channels = round_weight(graph.weights[weight.name].permute(0, 2, 3, 1).reshape(columns, -1))
    operands = (
        _quantized_padded(graph, source, scale),
        graph.constant(f"{weight.name}_fp8", matrix),
        graph.constant(f"{weight.name}_input", scale),
        graph.constant(f"{weight.name}_channels", channels),
    )
    return graph.call(node, torch.ops.sdtrt.conv3x3.default, *operands, bias, node.meta["val"].dtype)


def _quantized_padded(graph: Graph, source: Node, scale: float) -> Node:
    """The bits of the input in FP8 with a row and a column of zeros after its last ones, (N, C, H + 1, W + 1)."""
    import torch

    if (fused := fuse_quantize_padded(graph, source, scale)) is not None:
        return fused
    bits = quantize_fp8(graph, source, scale)
    padded = graph.call(source, torch.ops.aten.constant_pad_nd.default, bits, [0, 1, 0, 1], 0)
    value = source.meta["val"]
    images, channels, height, width = value.shape
    return in_memory(graph, padded, value.new_empty((images, channels, height + 1, width + 1)))
