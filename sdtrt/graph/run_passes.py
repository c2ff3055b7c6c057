"""The loop over graph passes, one for ONNX files and for traced graphs, and what a pass returns."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Generic, TypeVar

from sdtrt import registry
from sdtrt.bundle.manifest import Change
from sdtrt.errors import GraphError

G = TypeVar("G")


@dataclass(frozen=True)
class Result(Generic[G]):
    """The graph after the pass, how many nodes it changed, and why it left others alone."""

    model: G
    changed: int
    notes: tuple[str, ...] = ()


def run_passes(
    graph: G,
    package: str,
    passes: Sequence[str],
    apply: Callable[[ModuleType, G, Sequence[str]], Result[G]],
    count_nodes: Callable[[G], int],
    component: str,
) -> tuple[G, tuple[Change, ...]]:
    """Run `passes` in order.

    Args:
        graph: the graph, which passes may change in place.
        package: the registry folder of the passes.
        passes: names of modules in `package`.
        apply: runs a pass module on a graph; its third argument are the passes that follow.
        count_nodes: returns the number of nodes of a graph.
        component: name of the component, for errors.

    Returns:
        The graph after the last pass, and what each pass changed.

    Raises:
        GraphError: a pass is unknown or failed.
    """
    changes = []
    for number, name in enumerate(passes, start=1):
        module = registry.load(package, name, GraphError)
        nodes_before = count_nodes(graph)
        try:
            result = apply(module, graph, passes[number:])
        except Exception as exc:
            raise GraphError(
                f"the pass {name} failed on {component}",
                received=f"{type(exc).__name__}: {exc}",
                hint=f"leave it out: passes: [{', '.join(p for p in passes if p != name)}] in the config",
            ) from exc
        graph = result.model
        changes.append(
            Change(
                name=name,
                version=module.VERSION,
                changed=result.changed,
                nodes_before=nodes_before,
                nodes_after=count_nodes(graph),
                notes=result.notes,
            )
        )
    return graph, tuple(changes)
