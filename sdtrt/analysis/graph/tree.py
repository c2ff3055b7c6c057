"""The tree of boxes in the report's graph: nested modules, such that no click shows a single box or hundreds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from sdtrt.analysis.graph.edges import Edge
from sdtrt.analysis.graph.modules import layer_paths, runs, short_name
from sdtrt.plan.layers import Plan

# More layers than this in one group are cut into runs.
MOST_LAYERS = 30
# While the first view has fewer boxes than FEW, a group with most of the layers is opened, unless that makes it MANY.
FEW, MANY = 8, 30
# Steps of a module path that get a box of their own; diffusers' have up to 8.
MOST_DEPTH = 12


@dataclass
class Group:
    """A box that opens. `layers` are those directly in it, by number."""

    label: str
    path: str
    layers: list[int] = field(default_factory=list)
    groups: list[Group] = field(default_factory=list)
    open: bool = False

    def size(self) -> int:
        """Layers in it, also inside its groups."""
        return len(self.layers) + sum(group.size() for group in self.groups)

    def boxes(self) -> int:
        """Boxes that are seen when it is opened."""
        return len(self.layers) + len(self.groups)

    def numbered(self, parent: int = -1, start: int = 0) -> Iterator[tuple[int, int, Group]]:
        """Number, number of the parent, and group: itself first, then what is inside."""
        yield start, parent, self
        number = start + 1
        for group in self.groups:
            for item in group.numbered(start, number):
                number = item[0] + 1
                yield item


def group_tree(plan: Plan, edges: Sequence[Edge]) -> tuple[Group, list[str]]:
    """The engine as a group, and the label of each layer's box."""
    root = Group(plan.component, "", open=True)
    known: dict[tuple[str, ...], Group] = {(): root}
    for layer, path in enumerate(layer_paths(plan)):
        path = (*path[:MOST_DEPTH], ".".join(path[MOST_DEPTH:])) if len(path) > MOST_DEPTH else path
        for depth in range(1, len(path) + 1):
            if path[:depth] not in known:
                known[path[:depth]] = Group(path[depth - 1], ".".join(path[:depth]))
                known[path[: depth - 1]].groups.append(known[path[:depth]])
        known[path].layers.append(layer)
    steps: dict[int, str] = {}
    root.groups = [kept for group in root.groups for kept in _simplify(group, root, steps)]
    _open(root)
    _split_into_runs(root, edges)
    names = [short_name(layer.name) for layer in plan.layers]
    return root, [f"{steps[number]} · {name}" if number in steps else name for number, name in enumerate(names)]


def _simplify(group: Group, parent: Group, steps: dict[int, str]) -> list[Group]:
    """The replacement of `group`: nothing when its only layer can stand in `parent`, its only child, or itself.

    `steps` collects the module steps that layers brought with them.
    """
    group.groups = [kept for child in group.groups for kept in _simplify(child, group, steps)]
    if group.boxes() > 1:
        return [group]
    if group.layers:
        layer = group.layers[0]
        parent.layers.append(layer)
        steps[layer] = f"{group.label}.{steps[layer]}" if layer in steps else group.label
        return []
    (child,) = group.groups
    child.label = f"{group.label}.{child.label}"
    return [child]


def _split_into_runs(group: Group, edges: Sequence[Edge]) -> None:
    for child in group.groups:
        _split_into_runs(child, edges)
    group.layers.sort()
    if len(group.layers) > MOST_LAYERS:
        for run in runs(group.layers, edges):
            name = f"layers {run[0] + 1} to {run[-1] + 1}"
            part = Group(name, f"{group.path}, {name}".lstrip(", "), run)
            _split_into_runs(part, edges)
            group.groups.append(part)
        group.layers = []


def _open(root: Group) -> None:
    """Open groups for the first view: an engine that is one module opens further than a U-Net."""
    boxes, closed = root.boxes(), root.groups
    while boxes < FEW and closed:
        biggest = max(closed, key=Group.size)
        boxes += biggest.boxes() - 1
        if boxes > MANY or 2 * biggest.size() < root.size():
            return
        biggest.open = True
        closed = biggest.groups
