"""How much memory a component takes: activations by its graph, the rest by its engine, and the build's own peak."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sdtrt import costs
from sdtrt.bundle.bundle import Bundle
from sdtrt.bundle.manifest import ProfileMemory
from sdtrt.errors import GraphError, ShapeError
from sdtrt.shapes.spec import ComponentSpec, ShapeProfile

if TYPE_CHECKING:
    from sdtrt.costs import GraphCosts


def of_graph(
    onnx: Path | None, spec: ComponentSpec, profiles: Sequence[ShapeProfile], best: GraphCosts | None = None
) -> tuple[ProfileMemory, ...]:
    """Activations at the best and the largest size of every profile; None where there is no graph, or it does not tell.

    `best` is the graph's cost at the best size of the first profile, where that was counted already.
    """
    found = []
    for profile in profiles:
        at_opt = costs.peak_bytes(best) if best is not None else _activations(onnx, spec, profile, "opt")
        one_size = profile.sizes("opt") == profile.sizes("max")
        at_max = at_opt if one_size else _activations(onnx, spec, profile, "max")
        found.append(ProfileMemory(profile=str(profile), activation_opt_bytes=at_opt, activation_max_bytes=at_max))
        best = None
    return tuple(found)


def expected(spec: ComponentSpec, profiles: Sequence[ShapeProfile], bundle: Bundle | None) -> tuple[ProfileMemory, ...]:
    """What a build would find: as the bundle that is there says it, or its graph, or else not known."""
    built = bundle.manifest.components.get(spec.name) if bundle else None
    if bundle is None or built is None:
        return of_graph(None, spec, profiles)
    wanted = [str(profile) for profile in profiles]
    if built.memory is not None and [m.profile for m in built.memory.profiles] == wanted:
        return built.memory.profiles
    return of_graph(next(bundle.folder(spec.name).glob("*.onnx"), None), spec, profiles)


def _activations(onnx: Path | None, spec: ComponentSpec, profile: ShapeProfile, point: str) -> int | None:
    if onnx is None:
        return None
    try:
        shapes = {t.name: t.resolve(profile.sizes(point)) for t in spec.inputs}
        return costs.peak_bytes(costs.graph_costs(onnx, shapes))
    except (GraphError, ShapeError):
        return None  # a graph of other sizes, or of another model
