"""3x3 convolutions in FP8, as one product over the neighbourhoods of all pixels.

cuDNN's half precision convolutions ran at 470 to 590 TFLOP/s on an H200, FP8 products of these sizes at 1000 to 1250.
Writing the neighbourhoods out costs nine times the tensor's bytes, which pays where there are many channels and few
pixels. The GroupNorm in front rounds as it writes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sdtrt.engines._inductor.capture import Graph
from sdtrt.engines._inductor.fp8 import LARGEST, constant, device_of, round_weight, rounded
from sdtrt.engines._inductor.group_norm import in_memory

if TYPE_CHECKING:
    Node = Any  # of torch.fx, whose own types say too little of arguments

LEAST_CHANNELS = 640
MOST_BYTES = 1 << 30


def run(graph: Graph, amax: Mapping[str, float]) -> int:
    """Rewrite the convolutions that were calibrated and pay; returns how many."""
    import torch

    from sdtrt.engines._inductor.unfold_kernel import unfold3x3

    del unfold3x3  # importing it registered the operation
    changed = 0
    for node in list(graph.nodes.find_nodes(op="call_function", target=torch.ops.aten.conv2d.default)):
        found = _calibrated(graph, node, amax)
        if found is None:
            continue
        with graph.nodes.inserting_before(node):
            made = _product(graph, node, found / LARGEST)
        node.replace_all_uses_with(made)
        changed += 1
    graph.finish()
    return changed


def _calibrated(graph: Graph, node: Node, amax: Mapping[str, float]) -> float | None:
    """The input's largest magnitude, when the layer was calibrated and is one of those that pay."""
    given: tuple[Any, ...] = node.args
    source, weight, _, stride, padding, dilation, groups = (*given, *_DEFAULTS[len(given) :])
    if weight.name not in graph.weights or len(weight.users) != 1:
        return None
    layer = graph.sources[weight.name][0][0].rpartition(".")[0]
    columns, channels, *kernel = tuple(graph.weights[weight.name].shape)
    plain = (list(stride), list(padding), list(dilation), groups, kernel) == ([1, 1], [1, 1], [1, 1], 1, [3, 3])
    images, _, height, width = source.meta["val"].shape
    pixels = images * height * width
    pays = channels >= LEAST_CHANNELS and 9 * channels * pixels <= MOST_BYTES and pixels % 64 == 0
    return amax.get(layer) if plain and pays and channels % 16 == 0 and columns % 16 == 0 else None


_DEFAULTS: tuple[Any, ...] = (None, None, None, [1, 1], [0, 0], [1, 1], 1)


def _product(graph: Graph, node: Node, scale: float) -> Node:
    import torch

    aten, call = torch.ops.aten, graph.nodes.call_function
    source, weight = node.args[:2]
    bias = node.args[2] if len(node.args) > 2 else None
    value = node.meta["val"]
    images, columns, height, width = value.shape
    matrix, scales = round_weight(graph.weights[weight.name].permute(0, 2, 3, 1).reshape(columns, -1))
    rows = images * height * width
    taken = call(torch.ops.sdtrt.unfold3x3.default, (_rounded(graph, source, scale),))
    neighbours = call(aten.view.dtype, (taken, torch.float8_e4m3fn))
    turned = call(aten.t.default, (constant(graph, f"{weight.name}_fp8", matrix),))
    left = constant(graph, f"{weight.name}_rows_{rows}", torch.full((rows, 1), scale, device=device_of(graph)))
    right = constant(graph, f"{weight.name}_channels", scales.reshape(1, -1))
    product = call(aten._scaled_mm.default, (neighbours, turned, left, right, bias, None, value.dtype, True))
    pixels = call(aten.reshape.default, (product, [images, height, width, columns]))
    image = call(aten.permute.default, (pixels, [0, 3, 1, 2]))
    for made in (taken, neighbours, turned, product, pixels, image):
        made.meta = {**node.meta, "val": value}
    return image


def _rounded(graph: Graph, source: Node, scale: float) -> Node:
    """The input's bits in FP8, by the GroupNorm that makes it when it makes it for this convolution alone."""
    import torch

    if source.target is torch.ops.sdtrt.group_norm.default and len(source.users) == 1:
        factor = constant(graph, f"{source.name}_factor", torch.tensor(1 / scale, device=device_of(graph)))
        source.args = (*source.args[:7], factor)
        return source
    narrow = rounded(graph, source, scale)
    bits = graph.nodes.call_function(torch.ops.aten.view.dtype, (narrow, torch.uint8))
    bits.meta = dict(narrow.meta)
    return in_memory(graph, bits, source.meta["val"])
