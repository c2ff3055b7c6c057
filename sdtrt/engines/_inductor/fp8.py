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

from sdtrt.engines._inductor import layer_norm
from sdtrt.engines._inductor.capture import Graph
from sdtrt.engines._inductor.rounding import LARGEST, constant, device_of, round_weight, rounded, written

if TYPE_CHECKING:
    Node = Any  # of torch.fx, whose own types say too little of arguments

# Fewer rows than this are bound by reading the weight.
LEAST_ROWS = 64
FEW_ROWS = 8192


def run(graph: Graph, amax: Mapping[str, float]) -> int:
    """Round the layers that were calibrated; `amax` is the largest input magnitude by layer. Returns how many."""
    import torch

    changed = 0
    seen: dict[tuple[str, float], Node] = {}
    for node in list(graph.nodes.find_nodes(op="call_function", target=torch.ops.aten.linear.default)):
        found = calibrated(graph, node, amax)
        if found is None:
            continue
        source, scale = node.args[0], found / LARGEST
        with graph.nodes.inserting_before(node):
            if (source.name, scale) not in seen:
                seen[source.name, scale] = rows_of(graph, source, scale)
            made = _product(graph, node, seen[source.name, scale], scale)
        node.replace_all_uses_with(made)
        changed += 1
    graph.finish()
    return changed


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

    aten, value = torch.ops.aten, source.meta["val"]
    made = written(graph, source, scale)
    narrow = rounded(graph, source, scale) if made is None else made
    steps: list[tuple[Any, Any]] = [(aten.reshape.default, [prod(value.shape[:-1]), value.shape[-1]])]
    if made is not None and numbers:
        steps.append((aten.view.dtype, torch.float8_e4m3fn))
    for target, argument in steps:
        narrow = graph.nodes.call_function(target, (narrow, argument))
        narrow.meta = dict(source.meta)
    return narrow


def _product(graph: Graph, node: Node, source: Node, scale: float) -> Node:
    import torch

    aten = torch.ops.aten
    value, name = node.meta["val"], node.args[1].name
    bias = node.args[2] if len(node.args) > 2 else None
    rows, device = prod(value.shape[:-1]), device_of(graph)
    matrix, channels = round_weight(graph.weights[name])

    def step(target: Any, *args: Any) -> Node:
        made = graph.nodes.call_function(target, args)
        made.meta = dict(node.meta)
        return made

    turned = step(aten.t.default, constant(graph, f"{name}_fp8", matrix))
    rest, shape = (None, value.dtype, True), list(value.shape)
    if rows > FEW_ROWS or _feeds_attention(node):
        left = constant(graph, f"{name}_rows_{rows}", torch.full((rows, 1), scale, device=device))
        right = constant(graph, f"{name}_channels", channels.reshape(1, -1))
        return step(
            aten.reshape.default, step(aten._scaled_mm.default, source, turned, left, right, bias, *rest), shape
        )
    largest = channels.max()
    left = constant(graph, f"{name}_input", torch.tensor(scale, device=device))
    right = constant(graph, f"{name}_largest", largest)
    ratios = constant(graph, f"{name}_ratios", (channels / largest).to(value.dtype))
    made = step(aten._scaled_mm.default, source, turned, left, right, None, *rest)
    made = step(aten.reshape.default, made, shape)
    if layer_norm.leave(graph, node, made, ratios, bias):
        return made
    made = step(aten.mul.Tensor, made, ratios)
    return made if bias is None else step(aten.add.Tensor, made, bias)


def _feeds_attention(node: Node) -> bool:
    """Whether an attention reads the result, through views only."""
    pending = list(node.users)
    while pending:
        user = pending.pop()
        if any(word in str(user.target) for word in ("scaled_dot_product", "short_attention")):
            return True
        if any(word in str(user.target) for word in ("getitem", "split", "view", "transpose", "reshape", "permute")):
            pending += user.users
    return False
