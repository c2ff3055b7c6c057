"""Removes what an engine need not compute: dropout, conversions to the same type, division by one.

`contiguous` on an image before a sum goes too: it would store the image channel by channel.

The compiler removes them as well, but only after the graph passes, which would have to look past them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    Node = Any  # of torch.fx, whose own types say too little of arguments


def run(graph: torch.fx.Graph) -> None:
    """Replace each by its input."""
    import torch

    aten = torch.ops.aten
    for node in graph.find_nodes(op="call_function", target=aten._assert_tensor_metadata.default):
        graph.erase_node(node)
    for node in list(graph.nodes):
        if node.op == "call_function" and _is_nothing(node):
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)


def _is_nothing(node: Node) -> bool:
    import torch

    aten = torch.ops.aten
    if node.target is aten.dropout.default:
        return len(node.args) > 2 and node.args[2] is False
    if node.target is aten.to.dtype:
        return bool(node.args[0].meta["val"].dtype == node.args[1]) and len(node.args) == 2 and not node.kwargs
    if node.target is aten.contiguous.default:
        return node.meta["val"].dim() == 4 and all(u.target is aten.add.Tensor for u in node.users)
    return node.target is aten.div.Tensor and node.args[1] == 1.0
