"""Attentions of a traced graph, which several passes replace."""

from collections.abc import Callable, Iterator

from sdtrt.engines.backends.inductor.trace import Graph, Node


def replace_plain(graph: Graph, rewrite: Callable[..., Node | None]) -> int:
    """`graph.replace_calls` of attentions in half precision without mask or dropout.

    `rewrite` takes the node and the shapes and types of query, key and value, as tensors.
    """
    import torch

    def rewrite_plain(node: Node) -> Node | None:
        return rewrite(node, *(a.meta["val"] for a in node.args)) if _is_plain(node) else None

    return graph.replace_calls(torch.ops.aten.scaled_dot_product_attention.default, rewrite_plain)


def attentions(graph: Graph) -> Iterator[tuple[Node, Node]]:
    """Plain attentions and those of cuDNN: the node with query, key and value, and the node of the result."""
    import torch

    aten = torch.ops.aten
    yield from ((n, n) for n in graph.calls(aten.scaled_dot_product_attention.default) if _is_plain(n))
    yield from ((n, next(iter(n.users))) for n in graph.calls(aten._scaled_dot_product_cudnn_attention.default))


def _is_plain(node: Node) -> bool:
    import torch

    half = all(a.meta["val"].dtype in (torch.float16, torch.bfloat16) for a in node.args[:3])
    return len(node.args) == 3 and not set(node.kwargs) - {"scale"} and half
