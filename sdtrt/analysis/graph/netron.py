"""An engine's graph as an ONNX model for Netron and other viewers: to look at, not to run.

Every layer is a node of the domain `sdtrt.engine`, with the layer's operator and all its known figures as attributes.
ONNX requires one producer per tensor, before its readers: tensors are renamed where the engine has several, layers are
sorted, and what a loop carries back becomes an input of the graph.
"""

from __future__ import annotations

import heapq
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdtrt.analysis.graph.edges import Edge, bindings, edges, one_writer_each
from sdtrt.analysis.graph.style import clean
from sdtrt.plan.layers import Layer, Plan, TensorInfo
from sdtrt.system.files import write_bytes

if TYPE_CHECKING:
    import onnx

DOMAIN = "sdtrt.engine"
_FIGURES = ("kind", "kernel", "precision", "module", "time_ms", "flops", "bytes_moved", "weight_bytes", "stream")
# ONNX's names of element types where they are not the plan's in capitals, without underscores.
_TYPES = {"float32": "FLOAT", "float64": "DOUBLE", "float8": "FLOAT8E4M3FN", "float4": "FLOAT4E2M1"}


def to_onnx(plan: Plan) -> onnx.ModelProto:
    """The graph of `plan`; ONNX's checker accepts it. A tensor of unknown shape has one dimension, "unknown"."""
    from onnx import helper

    plan = one_writer_each(plan)
    layers, carried = _sorted(plan)
    tensors = {t.name: t for layer in layers for t in (*layer.inputs, *layer.outputs)}
    tensors |= {e.tensor.name: e.tensor for e in edges(plan) if e.tensor and e.tensor.name not in carried}
    names = dict(zip(tensors, _unique(tensors), strict=True))
    nodes = [
        helper.make_node(
            clean(layer.op) or "Layer",
            [names[name] for name in dict.fromkeys(tensor.name for tensor in layer.inputs)],
            [names[name] for name in dict.fromkeys(tensor.name for tensor in layer.outputs)],
            label,
            domain=DOMAIN,
            **_attributes(layer),
        )
        for layer, label in zip(layers, _unique(layer.name for layer in layers), strict=True)
    ]
    produced = {tensor.name for layer in layers for tensor in layer.outputs}
    consumed = {tensor.name for layer in layers for tensor in layer.inputs}
    results = [tensor.name for tensor in bindings(plan)[1] if tensor.name in produced]
    graph = helper.make_graph(
        nodes,
        clean(plan.component) or "engine",
        [_value(names[name], tensors[name]) for name in tensors if name in consumed - produced],
        [_value(names[name], tensors[name]) for name in results],
        value_info=[_value(names[name], tensors[name]) for name in tensors if name in produced - set(results)],
    )
    model = helper.make_model(graph, producer_name="sdtrt", opset_imports=[helper.make_opsetid(DOMAIN, 1)])
    about = {"backend": plan.backend, "backend_version": plan.backend_version, "device": plan.device}
    helper.set_model_props(model, {key: clean(value) for key, value in about.items() if value})
    return model


def save_onnx(plan: Plan, path: str | Path) -> Path:
    """Write `to_onnx(plan)` to `path`, which is returned."""
    write_bytes(Path(path), to_onnx(plan).SerializeToString())
    return Path(path)


def _sorted(plan: Plan) -> tuple[list[Layer], set[str]]:
    """The layers, producers first and else in the engine's order, and the new names of what is carried back."""
    graph_edges = edges(plan)
    place = {layer: number for number, layer in enumerate(_order(len(plan.layers), graph_edges))}
    late = {(e.target, e.tensor.name) for e in graph_edges if e.tensor and place[e.source] >= place[e.target]}
    layers = []
    for index in place:
        layer = plan.layers[index]
        inputs = [
            tensor.model_copy(update={"name": f"{tensor.name} (carried back)"})
            if (index, tensor.name) in late
            else tensor
            for tensor in layer.inputs
        ]
        layers.append(layer.model_copy(update={"inputs": tuple(inputs)}))
    return layers, {f"{name} (carried back)" for _, name in late}


def _order(count: int, graph_edges: Sequence[Edge]) -> list[int]:
    """Kahn's algorithm; where a loop leaves no layer without open sources, the first one in the engine's order."""
    readers: dict[int, list[int]] = defaultdict(list)
    waits = [0] * count
    for edge in graph_edges:
        readers[edge.source].append(edge.target)
        waits[edge.target] += 1
    ready = [index for index in range(count) if not waits[index]]
    done: dict[int, None] = {}
    rest = iter(range(count))
    while len(done) < count:
        index = heapq.heappop(ready) if ready else next(index for index in rest if index not in done)
        if index in done:
            continue
        done[index] = None
        for reader in readers[index]:
            waits[reader] -= 1
            if not waits[reader]:
                heapq.heappush(ready, reader)
    return list(done)


def _unique(names: Iterable[str]) -> Iterator[str]:
    """Names that ONNX takes: not empty, no control characters, and none twice."""
    taken: set[str] = set()
    for name in names:
        base = unique = clean(name) or "(no name)"
        number = 1
        while unique in taken:
            number += 1
            unique = f"{base} #{number}"
        taken.add(unique)
        yield unique


def _attributes(layer: Layer) -> dict[str, Any]:
    """The layer's figures, and the backend's own attributes as text; what is not known is left out."""
    known: dict[str, Any] = {
        **{key: getattr(layer, key) for key in _FIGURES},
        "nodes": [clean(node) for node in layer.nodes],
        "formats": [clean(f"{t.name}: {t.format}") for t in (*layer.inputs, *layer.outputs) if t.format],
    }
    own = {
        f"engine.{clean(key)}": value if isinstance(value, str) else json.dumps(value)
        for key, value in layer.attributes.items()
    }
    return {key: _plain(value) for key, value in {**known, **own}.items() if value not in (None, [])}


def _plain(value: Any) -> Any:
    """Text without what protobuf cannot hold; integers over 64 bits as text."""
    if isinstance(value, str):
        return clean(value)
    return str(value) if isinstance(value, int) and value >= 1 << 63 else value


def _value(name: str, tensor: TensorInfo) -> onnx.ValueInfoProto:
    from onnx import TensorProto, helper

    text = _TYPES.get(tensor.dtype or "", (tensor.dtype or "").upper().replace("_", ""))
    known = dict(TensorProto.DataType.items()).get(text, TensorProto.UNDEFINED)
    sizes = ("unknown",) if tensor.shape is None else tensor.shape
    shape = [str(size) if isinstance(size, int) and size >= 1 << 63 else size for size in sizes]
    return helper.make_tensor_value_info(name, known, shape)
