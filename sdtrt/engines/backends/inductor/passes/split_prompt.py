"""A graph of its own for what depends on the prompt only: it runs once per prompt, not once per step.

Keys and values of every cross-attention and the embedding of SDXL's conditions depend on no latent and no timestep. A
U-Net is called 20 to 50 times with the same prompt: all calls but the first save this work and its weight reads.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from sdtrt.engines.backends.inductor.pass_context import Context
from sdtrt.engines.backends.inductor.trace import Graph, Node
from sdtrt.graph.run_passes import Result

if TYPE_CHECKING:
    import torch

VERSION = 1
REQUIRES = ()

# What a denoising loop keeps from its first step to its last.
PROMPT_INPUTS = ("encoder_hidden_states", "text_embeds", "time_ids", "timestep_cond")


def apply(graph: Graph, context: Context) -> Result[Graph]:
    """Split the graph: the prompt's part goes to the context, the step's part to the passes that follow.

    Not idempotent: the step's part has no prompt inputs left to split by, except those that it reads itself.
    """
    parts = split(graph)
    if parts is None:
        return Result(graph, 0, ("nothing depends on the prompt alone",))
    context.prompt, step = parts
    return Result(step, sum(n.op == "call_function" for n in context.prompt.nodes.nodes))


def split(graph: Graph) -> tuple[Graph, Graph] | None:
    """(prompt, step), or None when no input is constant or nothing is computed from them alone.

    The prompt graph's outputs are inputs of the step graph, under their nodes' names. The step takes
    views again, because they cost nothing and a tensor is then handed over once.
    """
    constant = {graph.inputs[n] for n in PROMPT_INPUTS if n in graph.inputs}
    early = _once(graph, constant)
    if not any(n.op == "call_function" and not _is_view(n) for n in early):
        return None
    handed = _frontier(graph, early)
    prompt, names = _extract(graph, early, handed), [n.name for n in handed]
    step = _rest(graph, handed)
    for part, inputs in ((prompt, constant), (step, set(graph.inputs.values()) - constant)):
        part.inputs = {n: p for n, p in graph.inputs.items() if p in inputs}
    step.inputs |= {n: n for n in names}
    # A prompt may reach the step itself, when the loop uses it without any computation.
    used = {n.name for n in step.nodes.find_nodes(op="placeholder")}
    step.inputs |= {n: p for n, p in graph.inputs.items() if p in used}
    return prompt, step


def _once(graph: Graph, constant: set[str]) -> set[Node]:
    """Nodes that depend on constant inputs and on weights only, and on at least one input."""
    found: set[Node] = set()
    weights = set(graph.weights)
    for node in graph.nodes.nodes:
        if node.op == "placeholder" and node.name in constant:
            found.add(node)
        elif node.op == "call_function" and node.all_input_nodes:
            sources = node.all_input_nodes
            if all(s in found or s.name in weights for s in sources) and any(s in found for s in sources):
                found.add(node)
    return found


def _is_view(node: Node) -> bool:
    import torch

    aten = torch.ops.aten
    views = {aten.view.default, aten.transpose.int, aten.split_with_sizes.default, aten.permute.default}
    views |= {aten.unsqueeze.default, aten.slice.Tensor, aten.select.int, aten.expand.default, aten.reshape.default}
    return node.target is operator.getitem or node.target in views


def _frontier(graph: Graph, early: set[Node]) -> list[Node]:
    """The early nodes that hold what later ones read, seen through views."""
    handed: dict[Node, None] = {}

    def visit(node: Node) -> None:
        if node not in early or node.op == "placeholder":
            return
        if _is_view(node):
            for source in node.all_input_nodes:
                visit(source)
        else:
            handed[node] = None

    for node in graph.nodes.nodes:
        if node not in early:
            for source in node.all_input_nodes:
                visit(source)
    return list(handed)


def _extract(graph: Graph, early: set[Node], outputs: Iterable[Node]) -> Graph:
    """A copy of the early nodes that returns `outputs`."""
    import torch

    copy, made = torch.fx.Graph(), {}
    for node in graph.nodes.nodes:
        if node.op == "placeholder" and (node in early or node.name in graph.weights):
            made[node] = copy.node_copy(node)
        elif node in early:
            made[node] = copy.node_copy(node, made.__getitem__)
    copy.output(tuple(made[n] for n in outputs))
    return _graph(copy, graph)


def _rest(graph: Graph, handed: list[Node]) -> Graph:
    """A copy of the whole in which what was computed early is an input; what only led to it is then dead."""
    import torch

    copy, made = torch.fx.Graph(), {}
    placeholders = [n for n in graph.nodes.nodes if n.op == "placeholder"]
    for node in placeholders:
        made[node] = copy.node_copy(node)
    for node in handed:
        made[node] = copy.placeholder(node.name)
        made[node].meta = dict(node.meta)
    for node in graph.nodes.nodes:
        if node not in made:
            made[node] = copy.node_copy(node, made.__getitem__)
    return _graph(copy, graph)


def _graph(copy: torch.fx.Graph, source: Graph) -> Graph:
    import torch

    made: Any = Graph(torch.fx.GraphModule(torch.nn.Module(), copy), dict(source.weights), {}, dict(source.sources))
    inputs = set(source.inputs.values())
    made.finish()
    for node in list(copy.find_nodes(op="placeholder")):
        if node.name in inputs and not node.users:
            copy.erase_node(node)
    made.module.recompile()
    result: Graph = made
    return result
