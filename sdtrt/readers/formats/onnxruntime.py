"""ONNX Runtime's profile (`SessionOptions.enable_profiling`): a trace of every node that ran, on its own.

The trace has the runtime's own nodes in the order in which they ran, their types and shapes, and how many bytes were
weights; it does not name tensors. The first of three runs or more is a warm-up. With the ONNX file, nodes that the
runtime kept or renamed in its usual ways are joined; those that it fused are named after one of their nodes only.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sdtrt import costs as shared
from sdtrt.plan.layers import Layer, Plan, TensorInfo, Timing
from sdtrt.plan.node_names import module_of
from sdtrt.plan.op_kinds import node_kind
from sdtrt.readers.documents import Document, Omissions
from sdtrt.readers.formats.tensorrt.tensors import dims_of
from sdtrt.readers.formats.tensorrt.timings import milliseconds

if TYPE_CHECKING:
    from sdtrt.costs import GraphCosts

_DTYPES = {"float": "float32", "double": "float64"}
_ENDING = "_kernel_time"
_RUNS = ("model_run", "SequentialExecutor::Execute")
_ADDED = re.compile(r"^InsertedPrecisionFreeCast_|_nchwc$")
_MOVERS = frozenset({"ReorderInput", "ReorderOutput", "MemcpyToHost", "MemcpyFromHost"})


def sniff(document: Document) -> bool:
    """Whether the file is a trace of ONNX Runtime."""
    data = document.data
    entries = [e for e in data[:50] if isinstance(e, dict)] if isinstance(data, list) else []
    return any(e.get("cat") in ("Session", "Node") and "dur" in e for e in entries)


def read(documents: Sequence[Document], component: str, profile: int = 0) -> Plan:
    """One layer per node, in the order in which they first ran."""
    omitted = Omissions()
    document = documents[0]
    events = [e for e in document.data if isinstance(e, dict)]
    walls = [_micro(e, omitted) for e in events if e.get("name") == _RUNS[0]] or [
        _micro(e, omitted) for e in events if e.get("name") == _RUNS[1]
    ]
    nodes: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for event in events:
        name = event.get("name")
        if event.get("cat") == "Node" and isinstance(name, str) and name.endswith(_ENDING):
            facts = event["args"] if isinstance(event.get("args"), dict) else {}
            key = (name.removesuffix(_ENDING), str(facts.get("op_name", "unknown")), str(facts.get("node_index", "")))
            nodes.setdefault(key, []).append({**event, "args": facts})
    runs = len(walls) or max(map(len, nodes.values()), default=0)
    skipped = 1 if runs > 2 else 0
    layers = tuple(_layer(key, found, runs, skipped, omitted) for key, found in nodes.items())
    notes = [f"the first of {runs} runs was left out as a warm-up"] if skipped else []
    wall_ms = [ms for ms in walls[skipped:] if ms is not None]
    return Plan(
        component=component,
        backend="onnxruntime",
        backend_version=None,
        device=None,
        precision=None,
        layers=layers,
        runs=runs - skipped if runs else None,
        wall_times_ms=tuple(wall_ms) or None,
        notes=(*document.notes, *notes, *omitted.notes()),
    )


def join(plan: Plan, costs: GraphCosts) -> Plan:
    """The plan with the costs of the nodes that the runtime kept."""
    producers = {tensor: node for node, tensors in costs.writes.items() for tensor in tensors}
    layers = [
        x if x.nodes or x.op in _MOVERS else x.model_copy(update={"nodes": _nodes(x, costs, producers)})
        for x in plan.layers
    ]
    return shared.join(plan.model_copy(update={"layers": tuple(layers)}), costs)


def _nodes(layer: Layer, costs: GraphCosts, producers: dict[str, str]) -> tuple[str, ...]:
    """The node of this name, that writes the tensor of this name, or that a fusion was named after."""
    plain = _ADDED.sub("", _ADDED.sub("", layer.name))
    parts = plain.rstrip("/").split("/")
    fused = "/".join(parts[:-1])
    found = next((n for n in (layer.name, producers.get(plain), fused) if n in costs.nodes), None)
    # A cast that the runtime put after a node bears the name of its tensor: it is not the node.
    if found is None or (layer.op == "Cast" and costs.nodes[found].op != "Cast"):
        return ()
    return (found,)


def _layer(
    key: tuple[str, str, str], events: list[dict[str, Any]], runs: int, skipped: int, omitted: Omissions
) -> Layer:
    name, op, index = key
    facts = events[-1]["args"]
    name = name or f"{op}_{index}"
    inputs = _tensors(facts.get("input_type_shape"), f"{name} input", omitted)
    outputs = _tensors(facts.get("output_type_shape"), f"{name} output", omitted)
    weights, read, written = (_bytes(facts.get(k)) for k in ("parameter_size", "activation_size", "output_size"))
    times = [_micro(e, omitted) for e in events]
    known = [ms for ms in times if ms is not None]
    each = _per_run(known, runs) if len(known) == len(times) else None
    mean = Timing(mean_ms=sum(known) / runs) if each is None and known and runs else None
    moved = None if weights is None or read is None or written is None else weights + read + written
    return Layer(
        name=name,
        kind=node_kind(name, op),
        op=op,
        kernel=facts["provider"] if isinstance(facts.get("provider"), str) else None,
        precision=outputs[0].dtype if outputs else None,
        inputs=_activations(inputs, weights),
        outputs=outputs,
        module=module_of(name) if "/" in name else None,
        weight_bytes=weights,
        bytes_moved=moved,
        times_ms=None if each is None else tuple(each[skipped:]),
        timing=mean,
    )


def _per_run(times: list[float], runs: int) -> list[float] | None:
    """Time of a node in each run: in a loop it runs several times; None when the runs cannot be separated."""
    if not runs or len(times) % runs:
        return None
    size = len(times) // runs
    return [sum(times[i : i + size]) for i in range(0, len(times), size)]


def _micro(event: dict[str, Any], omitted: Omissions) -> float | None:
    value = milliseconds(event.get("dur"), omitted, event.get("name"))
    return None if value is None else value / 1e3


def _bytes(value: Any) -> int | None:
    """A size, which the runtime writes as text."""
    text = str(value) if isinstance(value, str | int) else ""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else None


def _tensors(raw: Any, name: str, omitted: Omissions) -> tuple[TensorInfo, ...]:
    found = []
    for index, entry in enumerate(raw if isinstance(raw, list) else []):
        dtype, shape = next(iter(entry.items())) if isinstance(entry, dict) and entry else (None, None)
        sizes = dims_of(shape, omitted, name)
        found.append(TensorInfo(name=f"{name} {index}", shape=sizes, dtype=_DTYPES.get(str(dtype), str(dtype))))
    return tuple(found)


def _activations(inputs: tuple[TensorInfo, ...], weights: int | None) -> tuple[TensorInfo, ...]:
    """Inputs without the weights, which come last and have the bytes that the runtime says."""
    for count in range(len(inputs), 0, -1):
        sizes = [t.nbytes for t in inputs[count:]]
        if weights and None not in sizes and sum(s or 0 for s in sizes) == weights:
            return inputs[:count]
    return inputs
