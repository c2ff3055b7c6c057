"""Linear layers that read the same tensor become one: query, key and value; all projections of the prompt.

One large matmul fills a GPU better than several small ones, and each saved launch is a few microseconds. The linear
layers of the time embedding in all residual blocks become one as well.
"""

import operator
from typing import Any

from sdtrt.engines.backends.inductor.pass_context import Context
from sdtrt.engines.backends.inductor.trace import Graph, Node
from sdtrt.graph.run_passes import Result

VERSION = 1
REQUIRES = ()


def apply(graph: Graph, context: Context) -> Result[Graph]:
    """Fuse all of them; the number of changes is that of layers that became part of another."""
    _merge_equal_activations(graph)
    groups: dict[tuple[Any, bool], list[Node]] = {}
    for node in graph.nodes.nodes:
        if _is_linear(node) and _own_weights(graph, node):
            groups.setdefault((node.args[0], len(node.args) > 2 and node.args[2] is not None), []).append(node)
    changed = 0
    for (source, biased), layers in groups.items():
        if len(layers) > 1:
            _fuse(graph, source, layers, biased)
            changed += len(layers) - 1
    graph.finish()
    return Result(graph, changed)


def _is_linear(node: Node) -> bool:
    import torch

    return node.op == "call_function" and node.target is torch.ops.aten.linear.default


def _own_weights(graph: Graph, node: Node) -> bool:
    operands = [a for a in node.args[1:] if a is not None]
    return all(a.name in graph.weights and len(a.users) == 1 for a in operands)


def _merge_equal_activations(graph: Graph) -> None:
    """Every residual block applies SiLU to the time embedding: keep the first one."""
    import torch

    seen: dict[Any, Node] = {}
    for node in list(graph.nodes.nodes):
        if node.op == "call_function" and node.target is torch.ops.aten.silu.default:
            first = seen.setdefault(node.args[0], node)
            if first is not node:
                node.replace_all_uses_with(first)
                graph.nodes.erase_node(node)


def _fuse(graph: Graph, source: Node, layers: list[Node], biased: bool) -> None:
    import torch

    sizes = [graph.weights[layer.args[1].name].shape[0] for layer in layers]
    operands = [_join(graph, [layer.args[i] for layer in layers]) for i in range(1, 3 if biased else 2)]
    with graph.nodes.inserting_before(layers[0]):
        joined = graph.nodes.call_function(torch.ops.aten.linear.default, (source, *operands))
        parts = graph.nodes.call_function(torch.ops.aten.split_with_sizes.default, (joined, sizes, -1))
    first = layers[0].meta["val"]
    joined.meta = {**layers[0].meta, "val": first.new_empty((*first.shape[:-1], sum(sizes)))}
    parts.meta = {**layers[0].meta, "val": list(joined.meta["val"].split(sizes, -1))}
    for index, layer in enumerate(layers):
        with graph.nodes.inserting_before(layers[0]):
            part = graph.nodes.call_function(operator.getitem, (parts, index))
        part.meta = {**layer.meta, "val": parts.meta["val"][index]}
        layer.replace_all_uses_with(part)
    for layer in layers:
        graph.nodes.erase_node(layer)


def _join(graph: Graph, placeholders: list[Any]) -> Node:
    """One weight with all rows; `graph.sources` says which rows belong to which parameter."""
    import torch

    name = f"{placeholders[0].name}_and_{len(placeholders) - 1}"
    weight = torch.cat([graph.weights[p.name] for p in placeholders])
    start, sources = 0, []
    for placeholder in placeholders:
        sources += [(parameter, start + offset) for parameter, offset in graph.sources[placeholder.name]]
        start += len(graph.weights[placeholder.name])
    with graph.nodes.inserting_before(placeholders[0]):
        node = graph.nodes.placeholder(name)
    first = placeholders[0].meta["val"]
    node.meta = {"val": first.new_empty(weight.shape)}
    graph.weights[node.name], graph.sources[node.name] = weight, sources
    return node
