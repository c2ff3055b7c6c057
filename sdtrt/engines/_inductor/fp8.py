"""Linear layers in FP8 (E4M3): the input rounded with one calibrated scale, the weight with one scale per channel.

The rounding is plain arithmetic on the graph, so that the compiler writes it into whatever makes the input: a norm, a
GELU. The product accumulates in float32 and comes out in half precision.

A product can take the channels' scales itself, or one scale, with the channels' ratios multiplied in afterwards by the
kernel that reads the result. On an H200 the second is faster by up to a third when there are few rows and the first
when there are many (benchmarks/results/h200_kernels.json); what an attention reads must be right at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import TYPE_CHECKING, Any

from sdtrt.engines._inductor.capture import Graph

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    Node = Any  # of torch.fx, whose own types say too little of arguments

LARGEST = 448.0  # of float8_e4m3fn
# Fewer rows than this are bound by reading the weight.
LEAST_ROWS = 64
FEW_ROWS = 8192


def run(graph: Graph, amax: Mapping[str, float]) -> int:
    """Round the layers that were calibrated; `amax` is the largest input magnitude by layer. Returns how many."""
    import torch

    changed = 0
    seen: dict[tuple[str, float], Node] = {}
    for node in list(graph.nodes.find_nodes(op="call_function", target=torch.ops.aten.linear.default)):
        found = _calibrated(graph, node, amax)
        if found is None:
            continue
        source, scale = node.args[0], found / LARGEST
        with graph.nodes.inserting_before(node):
            if (source.name, scale) not in seen:
                seen[source.name, scale] = _round(graph, source, scale)
            made = _product(graph, node, seen[source.name, scale], scale)
        node.replace_all_uses_with(made)
        changed += 1
    graph.finish()
    return changed


def _calibrated(graph: Graph, node: Node, amax: Mapping[str, float]) -> float | None:
    """The input's largest magnitude, when all layers that this one was made of were calibrated and the sizes suit."""
    weight, rows = node.args[1].name, prod(node.meta["val"].shape[:-1])
    if weight not in graph.weights or len(node.args[1].users) != 1:
        return None
    layers = [parameter.rpartition(".")[0] for parameter, _ in graph.sources[weight]]
    columns, inner = graph.weights[weight].shape
    if not layers or not all(layer in amax for layer in layers) or columns % 16 or inner % 16:
        return None
    return max(amax[layer] for layer in layers) if rows >= LEAST_ROWS else None


def _round(graph: Graph, source: Node, scale: float) -> Node:
    """The input as (rows, K) in FP8."""
    import torch

    value = source.meta["val"]
    narrow = rounded(graph, source, scale)
    shape = [prod(value.shape[:-1]), value.shape[-1]]
    flat = graph.nodes.call_function(torch.ops.aten.reshape.default, (narrow, shape))
    flat.meta = dict(narrow.meta)
    return flat


def rounded(graph: Graph, source: Node, scale: float) -> Node:
    """The tensor in FP8. The factor is a tensor: as a number it would make every kernel a different one."""
    import torch

    aten, call = torch.ops.aten, graph.nodes.call_function
    factor = constant(graph, f"{source.name}_factor", torch.tensor(1 / scale, device=device_of(graph)))
    wide = call(aten._to_copy.default, (source,), {"dtype": torch.float32})
    scaled = call(aten.mul.Tensor, (wide, factor))
    inside = call(aten.clamp.default, (scaled, -LARGEST, LARGEST))
    narrow = call(aten._to_copy.default, (inside,), {"dtype": torch.float8_e4m3fn})
    for made in (wide, scaled, inside, narrow):
        made.meta = {k: v for k, v in source.meta.items() if k != "val"}
    return narrow


def _product(graph: Graph, node: Node, source: Node, scale: float) -> Node:
    import torch

    aten, call = torch.ops.aten, graph.nodes.call_function
    value, name = node.meta["val"], node.args[1].name
    bias = node.args[2] if len(node.args) > 2 else None
    rows, device = prod(value.shape[:-1]), device_of(graph)
    matrix, channels = round_weight(graph.weights[name])
    turned = call(aten.t.default, (constant(graph, f"{name}_fp8", matrix),))
    if rows > FEW_ROWS or _feeds_attention(node):
        left = constant(graph, f"{name}_rows_{rows}", torch.full((rows, 1), scale, device=device))
        right = constant(graph, f"{name}_channels", channels.reshape(1, -1))
        product = call(aten._scaled_mm.default, (source, turned, left, right, bias, None, value.dtype, True))
    else:
        largest = channels.max()
        left = constant(graph, f"{name}_input", torch.tensor(scale, device=device))
        right = constant(graph, f"{name}_largest", largest)
        ratios = constant(graph, f"{name}_ratios", (channels / largest).to(value.dtype))
        product = call(aten._scaled_mm.default, (source, turned, left, right, None, None, value.dtype, True))
        product.meta = dict(node.meta)
        product = call(aten.mul.Tensor, (product, ratios))
        if bias is not None:
            product.meta = dict(node.meta)
            product = call(aten.add.Tensor, (product, bias))
    shaped = call(aten.reshape.default, (product, list(value.shape)))
    for made in (turned, product, shaped):
        made.meta = {**node.meta, "val": value}
    return shaped


def round_weight(weight: Tensor) -> tuple[Tensor, Tensor]:
    """The weight (N, K) in FP8 and its scales (N,)."""
    import torch

    wide = weight.float()
    scales = (wide.abs().amax(1) / LARGEST).clamp(min=torch.finfo(torch.float32).tiny)
    return (wide / scales[:, None]).clamp(-LARGEST, LARGEST).to(torch.float8_e4m3fn), scales


def _feeds_attention(node: Node) -> bool:
    """Whether an attention reads the result, through views only."""
    pending = list(node.users)
    while pending:
        user = pending.pop()
        if "scaled_dot_product" in str(user.target):
            return True
        if any(word in str(user.target) for word in ("getitem", "split", "view", "transpose", "reshape", "permute")):
            pending += user.users
    return False


def device_of(graph: Graph) -> torch.device:
    """Where the weights lie."""
    return next(iter(graph.weights.values())).device


def constant(graph: Graph, name: str, value: Tensor) -> Node:
    """A new weight of the graph."""
    first = next(iter(graph.nodes.nodes))
    with graph.nodes.inserting_before(first):
        node = graph.nodes.placeholder(name)
    node.meta = {"val": value.to("meta")}
    graph.weights[node.name] = value
    return node
