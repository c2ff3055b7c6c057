"""One component, traced at fixed sizes, as a flat graph whose arguments are weights and inputs.

Fixed sizes, because compiled code is faster when it knows them, and because reasoning about symbolic heights and widths
through a U-Net took the compiler more than ten minutes without an end (torch 2.13, 2 cores, a tiny U-Net).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sdtrt.engines.backends.inductor import tidy
from sdtrt.errors import ExportError
from sdtrt.shapes.spec import ComponentSpec

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

Node = Any  # of torch.fx, whose own types say too little of arguments
_INNER = "inner."  # the wrappers of `models` keep the checkpoint's module under this name


@dataclass
class Graph:
    """A traced component: `weights` by placeholder, `sources` say which parameters lie in which rows of a weight."""

    module: torch.fx.GraphModule
    weights: dict[str, Tensor]
    inputs: dict[str, str]
    sources: dict[str, list[tuple[str, int]]] = field(default_factory=dict)

    @property
    def nodes(self) -> torch.fx.Graph:
        """The graph itself."""
        return self.module.graph

    def call(self, like: Node, target: Any, *args: Any, **kwargs: Any) -> Node:
        """A new node at the place of insertion, of the same module as `like`; its value is not known."""
        node: Node = self.nodes.call_function(target, args, kwargs)
        node.meta = {k: v for k, v in like.meta.items() if k != "val"}
        return node

    def constant(self, name: str, value: Tensor | float) -> Node:
        """A new weight; a number becomes a float32 scalar on the device of the other weights."""
        import torch

        if not isinstance(value, torch.Tensor):
            value = torch.tensor(value, device=next(iter(self.weights.values())).device)
        first = next(iter(self.nodes.nodes))
        with self.nodes.inserting_before(first):
            node: Node = self.nodes.placeholder(name)
        node.target = node.name  # another node may have had the name
        node.meta = {"val": value.to("meta")}
        self.weights[node.name] = value
        return node

    def calls(self, target: Any) -> list[Node]:
        """All calls of the operator `target`, in their order."""
        return list(self.nodes.find_nodes(op="call_function", target=target))

    def replace(self, node: Node, new: Node) -> None:
        """Let all readers of `node` read `new`, which computes the same, and drop `node`."""
        new.meta["val"] = node.meta["val"]
        node.replace_all_uses_with(new)
        self.nodes.erase_node(node)

    def replace_calls(self, target: Any, rewrite: Callable[[Node], Node | None]) -> int:
        """Replace each call of `target` by the node that `rewrite` returns, where it returns one; the number of these.

        `rewrite` adds its nodes before the call.
        """
        changed = 0
        for node in self.calls(target):
            with self.nodes.inserting_before(node):
                new = rewrite(node)
            if new is not None:
                self.replace(node, new)
                changed += 1
        self.finish()
        return changed

    def finish(self) -> None:
        """Drop what nothing uses, weights too, and make the module callable again."""
        self.nodes.eliminate_dead_code(_acts)
        for node in list(self.nodes.find_nodes(op="placeholder")):
            if node.name in self.weights and not node.users:
                del self.weights[node.name]
                self.sources.pop(node.name, None)
                self.nodes.erase_node(node)
        self.nodes.lint()
        self.module.recompile()


def _acts(node: Node) -> bool:
    """Whether a node has an effect besides its result. torch itself counts all nodes that may draw random numbers.

    The attention of cuDNN may, for dropout: after its replacement it stayed in the graph and was priced twice.
    """
    return node.op in ("placeholder", "output") or getattr(getattr(node.target, "_schema", None), "is_mutable", False)


def terms(node: Node) -> tuple[Node, Node] | None:
    """The two tensors of one shape and type that a node adds up, when it is such a sum."""
    import torch

    if node.target is not torch.ops.aten.add.Tensor or node.kwargs:
        return None
    left, right = (getattr(a, "meta", {}).get("val") for a in node.args)
    if left is None or right is None or (left.shape, left.dtype) != (right.shape, right.dtype):
        return None
    return node.args[0], node.args[1]


def capture(spec: ComponentSpec, module: nn.Module, tensors: Mapping[str, Tensor]) -> Graph:
    """Trace `module` at the sizes of `tensors`, which lie on the device that the engine will run on.

    Raises ExportError when the model cannot be traced.
    """
    import torch

    try:
        with torch.no_grad():
            program = torch.export.export(module, (), kwargs=dict(tensors), strict=False)
    except Exception as exc:
        raise ExportError(
            f"{spec.name} could not be traced",
            slug="export-failed",
            received=f"{type(exc).__name__}: {str(exc)[:300]}",
            expected="a graph that torch.export can trace",
            hint="build with the tested versions of constraints.txt, or report the model that fails",
        ) from exc
    return _flatten(program, tensors)


def _flatten(program: Any, tensors: Mapping[str, Tensor]) -> Graph:
    """Placeholders of parameters, buffers and constants become weights; the others are the inputs in their order."""
    import torch

    signature = program.graph_signature
    owned = {
        **signature.inputs_to_parameters,
        **signature.inputs_to_buffers,
        **signature.inputs_to_lifted_tensor_constants,
    }
    state = {**program.state_dict, **program.constants}
    graph = program.graph_module.graph
    tidy.run(graph)
    weights, sources, inputs = {}, {}, {}
    user = iter(tensors)
    for node in graph.find_nodes(op="placeholder"):
        if (name := owned.get(node.name)) is not None:
            weights[node.name] = state[name].detach()
            sources[node.name] = [(name.removeprefix(_INNER), 0)]
        else:
            inputs[next(user)] = node.name
    traced = Graph(torch.fx.GraphModule(torch.nn.Module(), graph), weights, inputs, sources)
    traced.finish()
    return traced
