"""Which kernel computes an attention: ours for a few keys, cuDNN's for many, by measurement on an H200.

cuDNN was the fastest for every shape of SD and SDXL that libraries compute: self-attention took 0.60 to 0.92 of the
time of the flash kernel, which torch prefers. To the 77 tokens of a prompt our kernel took 0.6 of cuDNN's time, and it
rounds to FP8 as it writes (benchmarks/results/h200_kernels.json).
"""

from __future__ import annotations

import operator
from collections.abc import Iterator, Sequence
from math import sqrt
from typing import TYPE_CHECKING, Any

from sdtrt.engines.backends.inductor.trace import Graph

if TYPE_CHECKING:
    Node = Any  # of torch.fx, whose own types say too little of arguments


def short(graph: Graph) -> int:
    """Give attentions to a few keys to our kernel; returns how many."""
    import torch

    from sdtrt.engines.backends.inductor.kernels.cross_attention import MOST_KEYS, SIZES

    changed = 0
    for node, (query, key, value) in plain(graph):
        size = query.shape[-1]
        if key.shape[-2] > MOST_KEYS or value.shape[-1] != size or size not in SIZES:
            continue
        with graph.nodes.inserting_before(node):
            scale = node.kwargs.get("scale") or 1 / sqrt(size)
            made = graph.call(node, torch.ops.sdtrt.short_attention.default, *node.args[:3], scale)
            back = graph.call(node, torch.ops.aten.transpose.int, made, 1, 2)
        graph.replace(node, back)
        changed += 1
    graph.finish()
    return changed


def run(graph: Graph) -> int:
    """Give all attentions that suit it to cuDNN; returns how many."""
    import torch

    aten, changed = torch.ops.aten, 0
    for node, tensors in plain(graph):
        if not _suits(tensors):
            continue
        with graph.nodes.inserting_before(node):
            kernel = aten._scaled_dot_product_cudnn_attention.default
            both = graph.call(node, kernel, *node.args, None, False, 0.0, False, False, **node.kwargs)
            first = graph.call(node, operator.getitem, both, 0)
        graph.replace(node, first)
        changed += 1
    graph.finish()
    return changed


def plain(graph: Graph) -> Iterator[tuple[Node, list[Any]]]:
    """Attentions in half precision without mask or dropout, with query, key and value."""
    import torch

    target = torch.ops.aten.scaled_dot_product_attention.default
    for node in list(graph.nodes.find_nodes(op="call_function", target=target)):
        tensors = [a.meta["val"] for a in node.args[:3]]
        half = all(t.dtype in (torch.float16, torch.bfloat16) for t in tensors)
        if len(node.args) == 3 and not set(node.kwargs) - {"scale"} and half:
            yield node, tensors


def computed(graph: Graph) -> Iterator[tuple[Node, Node]]:
    """Those of `plain`, and those that `run` gave to cuDNN: the node with query, key and value, and the result."""
    import torch

    yield from ((node, node) for node, _ in plain(graph))
    given = torch.ops.aten._scaled_dot_product_cudnn_attention.default
    yield from ((node, next(iter(node.users))) for node in graph.nodes.find_nodes(op="call_function", target=given))


def _suits(tensors: Sequence[Any]) -> bool:
    """Whether cuDNN on this card takes query, key and value of these shapes and types."""
    import torch
    from torch.backends.cuda import SDPAParams, can_use_cudnn_attention

    real = [torch.empty(t.transpose(1, 2).shape, dtype=t.dtype, device="cuda").transpose(1, 2) for t in tensors]
    params: Any = SDPAParams  # its stub has the fields but not the constructor
    return bool(can_use_cudnn_attention(params(*real, None, 0.0, False, False)))
