"""A tensor in FP8 (E4M3), by the kernel that makes it where that is one of ours, else by plain arithmetic.

Arithmetic on the graph is written by the compiler into whatever makes the tensor, but not into a kernel that is not its
own: there it would be a launch, a read and a write. Our kernels take a factor and write the bits.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from sdtrt.engines.backends.inductor.trace import Graph

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    Node = Any  # of torch.fx, whose own types say too little of arguments

LARGEST = 448.0  # of float8_e4m3fn
# Operations of ours whose argument of this index is the factor before rounding; without it they do not round.
_FACTORS = {"group_norm": 7, "short_attention": 4, "layer_norm": 6, "upsample": 1, "self_attention": 7}
# Those that write, when asked behind the factor, a border of zeros as well.
_WITH_BORDER = ("group_norm", "upsample")
_ALWAYS = "gated"
_VIEWS = ("view", "reshape", "transpose", "permute", "_unsafe_view", "getitem")


def bits(graph: Graph, source: Node, scale: float) -> Node:
    """The bits of the tensor in FP8, as uint8, in its shape."""
    import torch

    if (made := written(graph, source, scale)) is None:
        made = graph.call(source, torch.ops.aten.view.dtype, rounded(graph, source, scale), torch.uint8)
    return made


def written(graph: Graph, source: Node, scale: float) -> Node | None:
    """The same where a kernel of ours can write them; else None."""
    if (maker := _maker(source)) is None:
        return None
    name = _own(maker)
    if name != _ALWAYS:
        place = _FACTORS[name]
        padded = (*maker.args, *[None] * place)[:place]
        with graph.nodes.inserting_before(maker):
            maker.args = (*padded, factor(graph, maker, scale))
    return source


def bordered(graph: Graph, source: Node, scale: float) -> Node | None:
    """`written` with a row and a column of zeros behind an image, where the kernel can write them; else None."""
    if _own(source) not in _WITH_BORDER or (made := written(graph, source, scale)) is None:
        return None
    made.args = (*made.args, True)
    return made


def rounded(graph: Graph, source: Node, scale: float) -> Node:
    """The tensor in FP8. The factor is a tensor: as a number it would make every kernel a different one."""
    import torch

    aten, step = torch.ops.aten, partial(graph.call, source)
    wide = step(aten._to_copy.default, source, dtype=torch.float32)
    scaled = step(aten.mul.Tensor, wide, factor(graph, source, scale))
    inside = step(aten.clamp.default, scaled, -LARGEST, LARGEST)
    return step(aten._to_copy.default, inside, dtype=torch.float8_e4m3fn)


def round_weight(weight: Tensor) -> tuple[Tensor, Tensor]:
    """The weight (N, K) in FP8 and its scales (N,), one for each row."""
    scales = _unit(weight.float().abs().amax(1))
    return _narrow(weight, scales[:, None]), scales


def round_matrix(weight: Tensor) -> tuple[Tensor, Tensor]:
    """The weight (N, K) in FP8 and its one scale ()."""
    scale = _unit(weight.float().abs().amax())
    return _narrow(weight, scale), scale


def _unit(largest: Tensor) -> Tensor:
    """What a one stands for when the largest magnitude shall be FP8's largest."""
    import torch

    return (largest / LARGEST).clamp(min=torch.finfo(torch.float32).tiny)


def _narrow(weight: Tensor, unit: Tensor) -> Tensor:
    import torch

    return (weight.float() / unit).clamp(-LARGEST, LARGEST).to(torch.float8_e4m3fn)


def factor(graph: Graph, source: Node, scale: float) -> Node:
    """What `source` is multiplied with before rounding, as a constant."""
    import torch

    return constant(graph, f"{source.name}_factor", torch.tensor(1 / scale, device=device_of(graph)))


def constant(graph: Graph, name: str, value: Tensor) -> Node:
    """A new weight of the graph."""
    first = next(iter(graph.nodes.nodes))
    with graph.nodes.inserting_before(first):
        node = graph.nodes.placeholder(name)
    node.target = node.name  # another node may have had the name
    node.meta = {"val": value.to("meta")}
    graph.weights[node.name] = value
    return node


def device_of(graph: Graph) -> torch.device:
    """Where the weights lie."""
    return next(iter(graph.weights.values())).device


def _maker(source: Node) -> Node | None:
    """The operation of ours that writes the tensor for its one reader, seen through views, if there is one."""
    node = source
    while node.op == "call_function" and (len(node.users) == 1 or _own(node) == "layer_norm"):
        if name := _own(node):
            return node if name == _ALWAYS or len(node.args) <= _FACTORS[name] else None
        if getattr(node.target, "__name__", "").partition(".")[0] not in _VIEWS:
            return None
        node = node.args[0]
    return None


def _own(node: Node) -> str:
    name = str(node.target)
    short = name.removeprefix("sdtrt.").partition(".")[0]
    return short if name.startswith("sdtrt.") and (short in _FACTORS or short == _ALWAYS) else ""
