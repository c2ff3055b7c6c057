"""The kernel of an FP8 convolution adds the residual of its block.

Otherwise the convolution writes its result, and a second launch reads it, adds the residual and writes it again. Where
a block changes the number of channels, another convolution makes the residual: its bias is added to this one's.
"""

from sdtrt.engines.backends.inductor.graph_edits.image_nodes import in_memory, own_bias
from sdtrt.engines.backends.inductor.pass_context import Context
from sdtrt.engines.backends.inductor.trace import Graph, Node, terms
from sdtrt.graph.run_passes import Result

VERSION = 1
REQUIRES = ("fp8", "hopper")


_BIAS = 4  # its place among the arguments


def apply(graph: Graph, context: Context) -> Result[Graph]:
    """Fuse every sum of a convolution and one other tensor that is the only reader of the convolution."""
    import torch

    changed = 0
    for node in graph.calls(torch.ops.sdtrt.conv3x3.default):
        if (total := _sum(node)) is None:
            continue
        residual: Node = next(a for a in total.args if a is not node)
        with graph.nodes.inserting_before(total):  # the residual may be computed after the convolution
            arguments = list(node.args)
            arguments[_BIAS] = _bias(graph, arguments[_BIAS], residual)
            held = in_memory(graph, residual, residual.meta["val"])
            fused = graph.call(node, node.target, *arguments, held)
        graph.replace(total, fused)
        changed += 1
    graph.finish()
    return Result(graph, changed)


def _sum(node: Node) -> Node | None:
    """The sum of the convolution and another tensor of its shape and type, if that alone reads it."""
    users = list(node.users)
    found = terms(users[0]) if len(users) == 1 else None
    return users[0] if found is not None and found.count(node) == 1 else None


def _bias(graph: Graph, bias: Node | None, residual: Node) -> Node | None:
    """The bias, plus that of the convolution that makes the residual for this node only, which then has none."""
    other = own_bias(residual)
    if bias is None or other is None or not {bias.name, other.name} <= graph.weights.keys():
        return bias
    residual.update_arg(2, None)
    both = graph.weights[bias.name].float() + graph.weights[other.name].float()
    return graph.constant(f"{bias.name}_and_residual", both.to(graph.weights[bias.name].dtype))
