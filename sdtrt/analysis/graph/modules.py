"""The module path of each layer, also in engines without known modules."""

import re
from collections.abc import Sequence
from itertools import accumulate
from math import ceil, sqrt

from sdtrt.analysis.graph.edges import Edge
from sdtrt.analysis.module_paths import module_path
from sdtrt.plan.layers import Plan
from sdtrt.plan.node_names import module_of

# TensorRT joins the names of fused nodes with a plus sign, and those in one Myelin group with control characters.
_JOINT = re.compile(r" \+ |[\x1e\x1f]+")
MOST_RUNS = 24


def layer_paths(plan: Plan) -> list[tuple[str, ...]]:
    """The module path of every layer.

    In a plan without modules it is read from names that are paths ("/layer1/conv1/Conv"), and empty where most are not.
    """
    if any(layer.module for layer in plan.layers):
        return [module_path(layer.module) for layer in plan.layers]
    names = [name_parts(layer.name)[0] for layer in plan.layers]
    if 2 * sum(name.count("/") > 1 for name in names) < len(names):
        return [()] * len(names)
    return [module_path(module_of(name) if name.startswith("/") else None) for name in names]


def name_parts(name: str) -> list[str]:
    """The names that TensorRT joined to the name of one fused layer."""
    return [part.strip() for part in _JOINT.split(name) if part.strip()] or [name]


def short_name(name: str) -> str:
    """A layer's name without the path of its nodes: "/a/b/Conv + /a/c/Relu" gives "Conv + Relu"."""
    return " + ".join(part.rstrip("/").rpartition("/")[2] or part for part in name_parts(name))


def runs(layers: Sequence[int], edges: Sequence[Edge]) -> list[list[int]]:
    """Cut `layers`, given in order, into at most about 24 runs, where the fewest tensors cross the cut.

    In a network of residual blocks such cuts lie between the blocks.
    """
    size = max(ceil(sqrt(len(layers))), ceil(len(layers) / MOST_RUNS))
    crossing = _crossings(layers, edges)
    found, start = [], 0
    while len(layers) - start > 1.5 * size:
        window = range(start + ceil(size / 2), start + ceil(1.5 * size) + 1)
        cut = min(window, key=lambda place: (crossing[place], abs(place - start - size)))
        found.append(list(layers[start:cut]))
        start = cut
    return [*found, list(layers[start:])]


def _crossings(layers: Sequence[int], edges: Sequence[Edge]) -> list[int]:
    """How many tensors are alive before each place in `layers`; a tensor with many readers counts once."""
    place = {layer: index for index, layer in enumerate(layers)}
    spans: dict[tuple[int, str | None], list[int]] = {}
    for edge in edges:
        if edge.source in place and edge.target in place:
            ends = sorted((place[edge.source], place[edge.target]))
            span = spans.setdefault((edge.source, edge.tensor.name if edge.tensor else None), ends)
            span[:] = min(span[0], ends[0]), max(span[1], ends[1])
    change = [0] * (len(layers) + 1)
    for first, last in spans.values():
        change[first + 1] += 1
        change[last + 1] -= 1
    return list(accumulate(change))
