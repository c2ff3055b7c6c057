"""What is added to a convolution in FP8 is added by its kernel: the residual of every block of a U-Net.

Apart, the convolution writes its result, and a second launch reads it, adds and writes again. Where the residual comes
of a convolution of its own, as where a block changes the number of channels, that one's bias joins ours.
"""

from __future__ import annotations

from sdtrt.engines.backends.inductor.graph_edits.image_nodes import in_memory, own_bias
from sdtrt.engines.backends.inductor.pass_context import Context
from sdtrt.engines.backends.inductor.trace import Graph, Node, terms
from sdtrt.graph.pass_result import Result

VERSION = 1
REQUIRES = ("fp8", "hopper")


_BIAS = 4  # its place among the arguments


def apply(graph: Graph, context: Context) -> Result[Graph]:
    """Give convolutions the one tensor that is added to them and to nothing else; returns how many."""
    import torch

    changed = 0
    for node in graph.calls(torch.ops.sdtrt.conv3x3.default):
        if (total := _sum(node)) is None:
            continue
        residual: Node = next(a for a in total.args if a is not node)
        with graph.nodes.inserting_before(total):  # the residual may be computed behind the convolution
            given = list(node.args)
            given[_BIAS] = _bias(graph, given[_BIAS], residual)
            held = in_memory(graph, residual, residual.meta["val"])
            made = graph.call(node, node.target, *given, held)
        graph.replace(total, made)
        changed += 1
    graph.finish()
    return Result(graph, changed)


def _sum(node: Node) -> Node | None:
    """The sum of the convolution and another tensor of its shape and type, if that alone reads it."""
    users = list(node.users)
    found = terms(users[0]) if len(users) == 1 else None
    return users[0] if found is not None and found.count(node) == 1 else None


def _bias(graph: Graph, own: Node | None, residual: Node) -> Node | None:
    """Our bias, with that of the residual when a convolution for us alone makes it, which then has none."""
    theirs = own_bias(residual)
    if own is None or theirs is None or not {own.name, theirs.name} <= graph.weights.keys():
        return own
    residual.update_arg(2, None)
    both = graph.weights[own.name].float() + graph.weights[theirs.name].float()
    return graph.constant(f"{own.name}_and_residual", both.to(graph.weights[own.name].dtype))
