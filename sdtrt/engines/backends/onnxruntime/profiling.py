"""ONNX Runtime's optimized graph and its profile, read into layers that name the ONNX nodes they implement.

The runtime fuses and renames nodes but keeps the names of most tensors. So a node of the optimized graph implements the
nodes of the exported graph between its outputs and the tensors that other optimized nodes compute. A tensor that the
runtime adds around blocked convolutions (`reorder_token_7`) equals an exported one, found through the reorder nodes; a
blocked node is named after the exported tensor (`conv2d_3_nchwc`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import onnx

from sdtrt.plan.layers import Layer, TensorInfo
from sdtrt.plan.node_names import module_of
from sdtrt.plan.op_kinds import node_kind

# The profiler's names of types, in numpy's spelling where they differ.
_DTYPES = {"float": "float32", "double": "float64"}
_REORDER = {"ReorderInput", "ReorderOutput"}


def layers_of(model: Path, optimized: Path, trace: Path, runs: int) -> tuple[Layer, ...]:
    """The layers, one per node of the optimized graph, in its order.

    Args:
        model: the exported ONNX file.
        optimized: the graph that the runtime wrote.
        trace: the JSON file of its profiler, of `runs` + 1 runs, the first a warm-up.
        runs: timed runs.
    """
    graph = onnx.load(optimized, load_external_data=False).graph
    nodes, weights = list(graph.node), {t.name for t in graph.initializer}
    exported = _ExportedGraph(onnx.load(model, load_external_data=False).graph)
    aliases = _aliases(nodes)
    events = _events(trace)
    computed = {aliases.get(o, o) for node in nodes for o in node.output}
    return tuple(_layer(node, exported, aliases, computed, weights, events.get(node.name, []), runs) for node in nodes)


class _ExportedGraph:
    """The producers of the exported graph's tensors."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.producers = {name: node for node in graph.node for name in node.output}
        self.names = {node.name for node in graph.node}

    def nodes_between(self, computed: set[str], outputs: Iterable[str]) -> list[onnx.NodeProto]:
        """Nodes that compute `outputs` from the nearest tensors that the runtime still computes."""
        nodes: dict[str, onnx.NodeProto] = {}
        stack = [self.producers[o] for o in outputs if o in self.producers]
        while stack:
            node = stack.pop()
            nodes[node.name] = node
            feeding = (self.producers[i] for i in node.input if i not in computed and i in self.producers)
            stack += [n for n in feeding if n.name not in nodes]
        return list(nodes.values())


def _aliases(nodes: list[onnx.NodeProto]) -> dict[str, str]:
    """The exported tensor that equals each of the runtime's own."""
    aliases = {n.input[0]: n.output[0] for n in nodes if n.op_type == "ReorderOutput"}
    aliases |= {n.output[0]: n.input[0] for n in nodes if n.op_type == "ReorderInput"}
    for node in nodes:
        if node.name.endswith("_nchwc"):
            aliases.setdefault(node.output[0], node.name.removesuffix("_nchwc"))
    return aliases


def _layer(
    node: onnx.NodeProto,
    exported: _ExportedGraph,
    aliases: dict[str, str],
    computed: set[str],
    weights: set[str],
    events: list[dict[str, Any]],
    runs: int,
) -> Layer:
    outputs = [aliases.get(o, o) for o in node.output]
    inputs = {aliases.get(i, i) for i in node.input}
    # A layer that only changes the layout implements no node; it belongs to the module whose tensor it moves.
    nodes = [] if node.op_type in _REORDER else exported.nodes_between(computed, outputs)
    owner = next((exported.producers[t].name for t in (*outputs, *inputs) if t in exported.producers), None)
    if owner is None and node.name in exported.names:
        owner = node.name
    times = tuple(e["dur"] / 1e3 for e in events[-runs:]) if len(events) >= runs else None
    arguments = events[-1]["args"] if events else {}
    return Layer(
        name=node.name,
        kind=node_kind(owner or "", node.op_type),
        op=node.op_type,
        kernel=arguments.get("provider"),
        precision=_precision(arguments),
        inputs=tuple(t for t in _tensors(node.input, arguments, "input_type_shape") if t.name not in weights),
        outputs=_tensors(node.output, arguments, "output_type_shape"),
        nodes=tuple(n.name for n in nodes),
        module=None if owner is None else module_of(owner),
        times_ms=times,
    )


def _events(trace: Path) -> dict[str, list[dict[str, Any]]]:
    """Kernel events by node name, in the order of the runs."""
    by_node: dict[str, list[dict[str, Any]]] = {}
    for event in json.loads(trace.read_text(encoding="utf-8")):
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            by_node.setdefault(event["name"].removesuffix("_kernel_time"), []).append(event)
    return by_node


def _tensors(names: Iterable[str], arguments: dict[str, Any], key: str) -> tuple[TensorInfo, ...]:
    """Tensors with the type and shape of the trace; without both unless the trace has one for each."""
    named, entries = [n for n in names if n], arguments.get(key, [])
    if len(entries) != len(named) or any(len(entry) != 1 for entry in entries):
        return tuple(TensorInfo(name=n) for n in named)
    return tuple(
        TensorInfo(name=n, shape=tuple(shape), dtype=_DTYPES.get(dtype, dtype))
        for n, entry in zip(named, entries, strict=True)
        for dtype, shape in entry.items()
    )


def _precision(arguments: dict[str, Any]) -> str | None:
    """Type of the first output, in numpy's spelling."""
    types = [t for shape in arguments.get("output_type_shape", []) for t in shape]
    return _DTYPES.get(types[0], types[0]) if types else None
