"""A plan joined to the ONNX file that its engine was built from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from sdtrt import costs, readers
from sdtrt.errors import ConfigError, GraphError
from sdtrt.plan.layers import Plan

if TYPE_CHECKING:
    from sdtrt.costs import GraphCosts

Shapes = Mapping[str, tuple[int, ...]]


def join_onnx(plan: Plan, path: Path, shapes: Shapes | None = None) -> Plan:
    """`plan` with the costs of the file's nodes at `shapes`; other sizes are those of the plan.

    Raises:
        GraphError: the costs of the file are unknown, or it has no node in common with the engine.
    """
    graph = costs.graph_costs(path, {**plan.shapes, **(shapes or {})}, strict=False)
    joined_shapes = {name: shape for name, shape in (shapes or {}).items() if name in graph.tensors}
    join = costs.join
    if plan.backend in readers.names():
        join = getattr(readers.load(plan.backend), "join", join)
    joined: Plan = join(plan, graph)
    _check_kinship(joined, graph, path)
    notes = tuple(
        f"{name} is priced at {_text(shape)}, but the engine's files say {_text(plan.shapes[name])}"
        for name, shape in joined_shapes.items()
        if plan.shapes.get(name, shape) != shape
    )
    return joined.model_copy(update={"shapes": {**plan.shapes, **joined_shapes}, "notes": (*joined.notes, *notes)})


def check_names(plans: list[Plan], onnx: Mapping[str, object], shapes: Shapes) -> None:
    """ConfigError for an engine or an input that was named and does not exist."""
    engines = {name for plan in plans for name in names_of(plan)}
    inputs = {name for plan in plans for name in plan.shapes}
    for what, given, known in (("engine", onnx, engines), ("input", shapes, inputs)):
        if unknown := [name for name in given if name not in known]:
            raise ConfigError(
                f"there is no {what} called {unknown[0]}",
                slug="unknown-name",
                received=unknown[0],
                expected=", ".join(sorted(known)) or None,
            )


def names_of(plan: Plan) -> tuple[str, str]:
    """The component, and the component without the folder that distinguishes equal names."""
    return plan.component, plan.component.rpartition("/")[2]


def _check_kinship(plan: Plan, graph: GraphCosts, path: Path) -> None:
    """Without one node in common, the totals would be those of another network."""
    if not plan.layers or any(name in graph.nodes for layer in plan.layers for name in layer.nodes):
        return
    named = next((name for layer in plan.layers for name in layer.nodes), plan.layers[0].name)
    raise GraphError(
        f"no layer of {plan.component} names a node of the ONNX file",
        slug="onnx-foreign",
        received=f"{path}: {len(graph.nodes)} nodes, such as {next(iter(graph.nodes), 'none')[:80]}",
        expected=f"the file that the engine was built from; one of its layers has {named[:80]}",
        hint="give that file; if it is, build the engine with --profilingVerbosity=detailed and export again",
    )


def _text(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "scalar"
