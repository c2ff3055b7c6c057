"""An estimate of the memory of a component: the activations of its ONNX graph, by profile."""

from collections.abc import Sequence
from pathlib import Path

from sdtrt import costs
from sdtrt.bundle.bundle import Bundle
from sdtrt.bundle.manifest import ProfileMemory
from sdtrt.costs import GraphCosts
from sdtrt.errors import GraphError, ShapeError
from sdtrt.shapes.spec import ComponentSpec, ShapeProfile


def of_graph(
    onnx: Path | None, spec: ComponentSpec, profiles: Sequence[ShapeProfile], first_costs: GraphCosts | None = None
) -> tuple[ProfileMemory, ...]:
    """Peak bytes of activations at the best and the largest size of every profile.

    They are None without a graph, and for sizes that the graph does not take.

    Args:
        onnx: the graph.
        spec: the component.
        profiles: the sizes.
        first_costs: the graph's costs at the best size of the first profile, where they are counted already.
    """
    memory = []
    for profile in profiles:
        at_opt = costs.peak_bytes(first_costs) if first_costs is not None else _activations(onnx, spec, profile, "opt")
        one_size = profile.sizes("opt") == profile.sizes("max")
        at_max = at_opt if one_size else _activations(onnx, spec, profile, "max")
        memory.append(ProfileMemory(profile=str(profile), activation_opt_bytes=at_opt, activation_max_bytes=at_max))
        first_costs = None
    return tuple(memory)


def expected(spec: ComponentSpec, profiles: Sequence[ShapeProfile], bundle: Bundle | None) -> tuple[ProfileMemory, ...]:
    """The memory of a component before a build: from the record of the bundle, or from its graph, or else unknown."""
    built = bundle.manifest.components.get(spec.name) if bundle else None
    if bundle is None or built is None:
        return of_graph(None, spec, profiles)
    if built.memory is not None and [m.profile for m in built.memory.profiles] == [str(p) for p in profiles]:
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
