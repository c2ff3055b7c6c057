"""ONNX Runtime's optimized graph and its profile, read into layers that name the ONNX nodes they implement.

The runtime fuses and renames nodes but keeps the names of most tensors. So a node of the optimized graph implements the
nodes of the exported graph between its outputs and the tensors that other optimized nodes compute. A tensor that the
runtime adds around blocked convolutions (`reorder_token_7`) equals an exported one, found through the reorder nodes; a
blocked node is named after the exported tensor (`conv2d_3_nchwc`).
"""

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
    join = _Join(onnx.load(model, load_external_data=False).graph, graph)
    events = _events(trace)
    return tuple(join.layer(node, events.get(node.name, []), runs) for node in graph.node)


class _Join:
    """Joins nodes of the optimized graph to those of the exported one."""

    def __init__(self, exported: onnx.GraphProto, optimized: onnx.GraphProto) -> None:
        self.producers = {name: node for node in exported.node for name in node.output}
        self.names = {node.name for node in exported.node}
        self.weights = {t.name for t in optimized.initializer}
        self.aliases = _aliases(optimized.node)
        self.computed = {self.aliases.get(o, o) for node in optimized.node for o in node.output}

    def layer(self, node: onnx.NodeProto, events: list[dict[str, Any]], runs: int) -> Layer:
        """The layer of an optimized node, with its kernel events of all runs."""
        outputs = [self.aliases.get(o, o) for o in node.output]
        inputs = {self.aliases.get(i, i) for i in node.input}
        # A layer that only changes the layout implements no node; it belongs to the module whose tensor it moves.
        nodes = [] if node.op_type in _REORDER else self._nodes_of(outputs)
        owner = next((self.producers[t].name for t in (*outputs, *inputs) if t in self.producers), None)
        if owner is None and node.name in self.names:
            owner = node.name
        arguments = events[-1]["args"] if events else {}
        tensors = _tensors(node.input, arguments, "input_type_shape")
        return Layer(
            name=node.name,
            kind=node_kind(owner or "", node.op_type),
            op=node.op_type,
            kernel=arguments.get("provider"),
            precision=_precision(arguments),
            inputs=tuple(t for t in tensors if t.name not in self.weights),
            outputs=_tensors(node.output, arguments, "output_type_shape"),
            nodes=tuple(nodes),
            module=None if owner is None else module_of(owner),
            times_ms=tuple(e["dur"] / 1e3 for e in events[-runs:]) if len(events) >= runs else None,
        )

    def _nodes_of(self, outputs: Iterable[str]) -> list[str]:
        """Exported nodes that compute `outputs` from the nearest tensors that the runtime still computes."""
        nodes: dict[str, None] = {}
        stack = [self.producers[o] for o in outputs if o in self.producers]
        while stack:
            node = stack.pop()
            nodes[node.name] = None
            feeding = (self.producers[i] for i in node.input if i not in self.computed and i in self.producers)
            stack += [n for n in feeding if n.name not in nodes]
        return list(nodes)


def _aliases(nodes: Iterable[onnx.NodeProto]) -> dict[str, str]:
    """The exported tensor that equals each of the runtime's own."""
    aliases = {n.input[0]: n.output[0] for n in nodes if n.op_type == "ReorderOutput"}
    aliases |= {n.output[0]: n.input[0] for n in nodes if n.op_type == "ReorderInput"}
    for node in nodes:
        if node.name.endswith("_nchwc"):
            aliases.setdefault(node.output[0], node.name.removesuffix("_nchwc"))
    return aliases


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
