"""Smaller plans out of a big one: what matches a pattern, what is near a layer, or one box per module."""

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import Any

from sdtrt.analysis.graph.edges import edges, one_writer_each
from sdtrt.analysis.graph.modules import layer_paths
from sdtrt.analysis.graph.style import WHOLE, totals_ms
from sdtrt.analysis.module_paths import NO_MODULE
from sdtrt.errors import ConfigError
from sdtrt.plan.layers import Layer, Plan, TensorInfo, Timing
from sdtrt.plan.sums import sum_known


def subgraph(plan: Plan, query: str, radius: int = 1) -> Plan:
    """The layers whose name, kind, operator, kernel, module or ONNX node matches the regex `query`, without case.

    Layers at most `radius` edges away from a match are kept as well.

    Raises:
        ConfigError: The pattern is wrong or matches no layer.
    """
    try:
        pattern = re.compile(query, re.IGNORECASE)
    except re.error as exc:
        raise ConfigError(
            "the query is no regular expression", slug="query", received=query, expected=f"a pattern; {exc}"
        ) from exc
    found = [index for index, layer in enumerate(plan.layers) if any(map(pattern.search, _texts(layer)))]
    if not found:
        raise ConfigError(
            f"no layer of {plan.component} matches the query",
            slug="no-match",
            received=query,
            expected="a part of a layer's name, kind, operator, kernel, module or ONNX node",
        )
    return _keep(plan, _near(plan, found, radius))


def around(plan: Plan, layer: str | int, radius: int = 2) -> Plan:
    """What is at most `radius` edges away from `layer`, given by its whole name or its number in the engine.

    Raises:
        ConfigError: There is no such layer.
    """
    if isinstance(layer, int):
        found = [layer] if 0 <= layer < len(plan.layers) else []
    else:
        found = [index for index, each in enumerate(plan.layers) if each.name == layer]
    if not found:
        close = get_close_matches(str(layer), [each.name for each in plan.layers], n=3, cutoff=0.3)
        raise ConfigError(
            f"{plan.component} has no such layer",
            slug="no-match",
            received=layer,
            expected=f"a layer's name or a number below {len(plan.layers)}",
            hint=f"close to it: {', '.join(close)}" if close else "find it with --query, or subgraph(plan, pattern)",
        )
    return _keep(plan, _near(plan, found, radius))


def by_module(plan: Plan, depth: int = 1) -> Plan:
    """One layer per module, `depth` steps down the tree; its times, bytes and FLOPs are sums of what is known."""
    if depth < 1:
        raise ConfigError("depth counts the steps of a module path", slug="depth", received=depth, expected="1 or more")
    plan = one_writer_each(plan)
    names = [".".join(path[:depth]) or NO_MODULE for path in layer_paths(plan)]
    members: dict[str, list[Layer]] = defaultdict(list)
    readers: dict[str, set[str]] = defaultdict(set)
    for name, layer in zip(names, plan.layers, strict=True):
        members[name].append(layer)
        for tensor in layer.inputs:
            readers[tensor.name].add(name)
    results = {tensor.name for tensor in plan.outputs}
    layers = []
    for name, inside in members.items():
        written = {tensor.name: tensor for layer in inside for tensor in layer.outputs}
        read = {t.name: t for layer in inside for t in layer.inputs if t.name not in written}
        out = [t for t in written.values() if readers[t.name] != {name} or t.name in results]
        layers.append(_merge(name, inside, tuple(read.values()), tuple(out)))
    return plan.model_copy(update={"layers": tuple(layers)})


def _texts(layer: Layer) -> Iterable[str]:
    return (layer.name, layer.kind, layer.op, layer.kernel or "", layer.module or "", *layer.nodes)


def _near(plan: Plan, start: Iterable[int], radius: int) -> set[int]:
    neighbors: dict[int, set[int]] = defaultdict(set)
    for edge in edges(plan):
        neighbors[edge.source].add(edge.target)
        neighbors[edge.target].add(edge.source)
    found = set(start)
    border = found
    for _ in range(radius):
        border = {other for layer in border for other in neighbors[layer]} - found
        found |= border
    return found


def _keep(plan: Plan, indices: set[int]) -> Plan:
    whole = one_writer_each(plan)
    layers = tuple(layer for index, layer in enumerate(whole.layers) if index in indices)
    names = {tensor.name for layer in layers for tensor in (*layer.inputs, *layer.outputs)}
    ends = {
        "inputs": tuple(tensor for tensor in whole.inputs if tensor.name in names),
        "outputs": tuple(tensor for tensor in whole.outputs if tensor.name in names),
    }
    # Totals and wall times are those of the whole engine.
    totals: dict[str, Any] = {"total_flops": None, "total_weight_bytes": None, "wall_times_ms": None}
    totals["metadata"] = {**plan.metadata, WHOLE: totals_ms(plan)}
    return whole.model_copy(update={"layers": layers, **ends, **totals})


def _merge(name: str, inside: Sequence[Layer], read: tuple[TensorInfo, ...], out: tuple[TensorInfo, ...]) -> Layer:
    times_ms = [layer.time_ms for layer in inside]
    return Layer(
        name=name,
        kind=_most(inside, [layer.kind for layer in inside]),
        op="Module",
        precision=_most(inside, [layer.precision for layer in inside]),
        inputs=read,
        outputs=out,
        nodes=tuple(dict.fromkeys(node for layer in inside for node in layer.nodes)),
        module=None if name == NO_MODULE else name,
        weight_bytes=sum_known(layer.weight_bytes for layer in inside),
        bytes_moved=sum_known(layer.bytes_moved for layer in inside),
        flops=sum_known(layer.flops for layer in inside),
        timing=None if set(times_ms) == {None} else Timing(median_ms=sum_known(times_ms)),
        attributes={"layers": len(inside), "layers without a time": times_ms.count(None)},
    )


def _most(layers: Sequence[Layer], values: Sequence[str | None]) -> str | None:
    """The value that takes most of the time, or that most layers have where none was timed."""
    timed = any(layer.time_ms for layer in layers)
    weight: dict[str | None, float] = defaultdict(float)
    for layer, value in zip(layers, values, strict=True):
        weight[value] += (layer.time_ms or 0) if timed else 1
    return max(weight, key=weight.__getitem__)
