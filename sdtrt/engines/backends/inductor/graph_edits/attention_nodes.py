"""Attention nodes of a traced graph, which several passes look for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from sdtrt.engines.backends.inductor.trace import Graph

if TYPE_CHECKING:
    Node = Any  # of torch.fx, whose own types say too little of arguments


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
    """Those of `plain` and those of cuDNN: the node with query, key and value, and the result."""
    import torch

    yield from ((node, node) for node, _ in plain(graph))
    given = torch.ops.aten._scaled_dot_product_cudnn_attention.default
    yield from ((node, next(iter(node.users))) for node in graph.nodes.find_nodes(op="call_function", target=given))
