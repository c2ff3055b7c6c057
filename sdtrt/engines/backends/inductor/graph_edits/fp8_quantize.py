"""Quantization to FP8 (E4M3): of weights, and of tensors in a graph by their Triton kernel or by arithmetic.

The compiler fuses arithmetic on the graph into its own kernels, but not into a Triton kernel of `kernels/`: there it
would be a launch, a read and a write. Those kernels take the quantization scale and write FP8 themselves.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from sdtrt.engines.backends.inductor.trace import Graph, Node

if TYPE_CHECKING:
    from torch import Tensor

LARGEST = 448.0  # of float8_e4m3fn
# By Triton operator, the index of its argument `quant_scale`; without that argument it does not quantize.
_QUANT_SCALES = {"group_norm": 7, "short_attention": 4, "layer_norm": 6, "upsample": 1, "self_attention": 7}
# Operators whose next argument adds a border of zeros.
_WITH_BORDER = ("group_norm", "upsample")
_ALWAYS = "gated"  # always quantizes
_VIEWS = ("view", "reshape", "transpose", "permute", "_unsafe_view", "getitem")


def quantize_fp8(graph: Graph, source: Node, scale: float) -> Node:
    """The bits of the tensor in FP8, as uint8, in its shape. `scale` is the value of one FP8 unit."""
    import torch

    if (bits := fuse_quantize(graph, source, scale)) is None:
        bits = graph.call(source, torch.ops.aten.view.dtype, cast_fp8(graph, source, scale), torch.uint8)
    return bits


def fuse_quantize(graph: Graph, source: Node, scale: float) -> Node | None:
    """The same, written by the Triton kernel that makes the tensor; None where no such kernel makes it."""
    if (producer := _producer(source)) is None:
        return None
    name = _triton_operator(producer)
    if name != _ALWAYS:
        index = _QUANT_SCALES[name]
        padded = (*producer.args, *[None] * index)[:index]
        with graph.nodes.inserting_before(producer):
            producer.args = (*padded, quant_scale(graph, producer, scale))
    return source


def fuse_quantize_padded(graph: Graph, source: Node, scale: float) -> Node | None:
    """`fuse_quantize` of an image with a row and a column of zeros after its last ones; None where no kernel can."""
    if _triton_operator(source) not in _WITH_BORDER or (bits := fuse_quantize(graph, source, scale)) is None:
        return None
    bits.args = (*bits.args, True)
    return bits


def cast_fp8(graph: Graph, source: Node, scale: float) -> Node:
    """The tensor in FP8, by arithmetic.

    The scale is a tensor: as a number it would make every kernel a different one.
    """
    import torch

    aten, step = torch.ops.aten, partial(graph.call, source)
    wide = step(aten._to_copy.default, source, dtype=torch.float32)
    scaled = step(aten.mul.Tensor, wide, quant_scale(graph, source, scale))
    clamped = step(aten.clamp.default, scaled, -LARGEST, LARGEST)
    return step(aten._to_copy.default, clamped, dtype=torch.float8_e4m3fn)


def round_weight(weight: Tensor) -> tuple[Tensor, Tensor]:
    """The weight (N, K) in FP8 and its scales (N,), one for each row."""
    scales = _dequant_scale(weight.float().abs().amax(1))
    return _round(weight, scales[:, None]), scales


def round_matrix(weight: Tensor) -> tuple[Tensor, Tensor]:
    """The weight (N, K) in FP8 and its one scale ()."""
    scale = _dequant_scale(weight.float().abs().amax())
    return _round(weight, scale), scale


def _dequant_scale(amax: Tensor) -> Tensor:
    """The value of one FP8 unit when `amax` becomes FP8's largest number."""
    import torch

    return (amax / LARGEST).clamp(min=torch.finfo(torch.float32).tiny)


def _round(weight: Tensor, dequant_scale: Tensor) -> Tensor:
    import torch

    return (weight.float() / dequant_scale).clamp(-LARGEST, LARGEST).to(torch.float8_e4m3fn)


def quant_scale(graph: Graph, source: Node, scale: float) -> Node:
    """The constant that `source` is multiplied by before it is rounded: 1 / `scale`."""
    return graph.constant(f"{source.name}_factor", 1 / scale)


def _producer(source: Node) -> Node | None:
    """The call of a Triton operator that makes the tensor, seen through views; None when it cannot quantize.

    It can when the tensor has one reader and the call has no scale yet.
    """
    node = source
    while node.op == "call_function" and (len(node.users) == 1 or _triton_operator(node) == "layer_norm"):
        if name := _triton_operator(node):
            return node if name == _ALWAYS or len(node.args) <= _QUANT_SCALES[name] else None
        if getattr(node.target, "__name__", "").partition(".")[0] not in _VIEWS:
            return None
        node = node.args[0]
    return None


def _triton_operator(node: Node) -> str:
    """The name of the operator of `kernels/` that the node calls; empty when it is none that can quantize."""
    target = str(node.target)
    name = target.removeprefix("sdtrt.").partition(".")[0]
    return name if target.startswith("sdtrt.") and (name in _QUANT_SCALES or name == _ALWAYS) else ""
