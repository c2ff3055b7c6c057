"""Which layer reads what which layer wrote: the edges of an engine's graph, and its inputs and outputs.

Tensors are joined by name. One name may have several producers (a loop, or memory that is used again): a reader takes
the last producer before it, else the first one after it, which is a back edge.
"""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from sdtrt.plan.layers import Plan, TensorInfo


@dataclass(frozen=True)
class Edge:
    """From layer number `source` to layer number `target`; `tensor` is None when only the order is known."""

    source: int
    target: int
    tensor: TensorInfo | None


def edges(plan: Plan) -> tuple[Edge, ...]:
    """All edges, by reader. Plans whose layers name no tensor (eager, inductor) are chained in their order."""
    if not _names_tensors(plan):
        return tuple(Edge(index, index + 1, None) for index in range(len(plan.layers) - 1))
    writers, external = _writers(plan), {tensor.name for tensor in plan.inputs}
    outputs = [{tensor.name: tensor for tensor in layer.outputs} for layer in plan.layers]
    found = []
    for target, layer in enumerate(plan.layers):
        for name, read in {tensor.name: tensor for tensor in layer.inputs}.items():
            source = _source(target, writers.get(name, []), name in external)
            if source is not None:
                found.append(Edge(source, target, _complete(outputs[source][name], read)))
    return tuple(found)


def one_writer_each(plan: Plan) -> Plan:
    """The same graph with tensors renamed so that each has one producer: the second "x" becomes "x (2)".

    A plan that names no tensor gets one from each layer to the next. Layers can then be left out, merged or sorted
    without joining what was apart.
    """
    if not _names_tensors(plan):
        order = [TensorInfo(name=f"(after {index})") for index in range(1, len(plan.layers))]
        ends: list[tuple[TensorInfo, ...]] = [(), *((tensor,) for tensor in order), ()]
        chained = [
            layer.model_copy(update={"inputs": ends[index], "outputs": ends[index + 1]})
            for index, layer in enumerate(plan.layers)
        ]
        return plan.model_copy(update={"layers": tuple(chained)})
    names, writers, external = _unique_names(plan), _writers(plan), {tensor.name for tensor in plan.inputs}
    layers = []
    for index, layer in enumerate(plan.layers):
        sources = [_source(index, writers.get(tensor.name, []), tensor.name in external) for tensor in layer.inputs]
        inputs = [_rename(t, names.get((t.name, source))) for t, source in zip(layer.inputs, sources, strict=True)]
        outputs = [_rename(tensor, names[tensor.name, index]) for tensor in layer.outputs]
        layers.append(layer.model_copy(update={"inputs": tuple(inputs), "outputs": tuple(outputs)}))
    results = [_rename(t, names.get((t.name, writers.get(t.name, [None])[-1]))) for t in plan.outputs]
    return plan.model_copy(update={"layers": tuple(layers), "outputs": tuple(results)})


def bindings(plan: Plan) -> tuple[tuple[TensorInfo, ...], tuple[TensorInfo, ...]]:
    """The engine's inputs and outputs; where the plan names none, the tensors that no layer writes or reads."""
    if plan.inputs or plan.outputs:
        return plan.inputs, plan.outputs
    read = {tensor.name: tensor for layer in plan.layers for tensor in layer.inputs}
    written = {tensor.name: tensor for layer in plan.layers for tensor in layer.outputs}
    inputs = tuple(tensor for name, tensor in read.items() if name not in written)
    return inputs, tuple(tensor for name, tensor in written.items() if name not in read)


def _names_tensors(plan: Plan) -> bool:
    return any(layer.inputs or layer.outputs for layer in plan.layers)


def _writers(plan: Plan) -> dict[str, list[int]]:
    found: dict[str, list[int]] = defaultdict(list)
    for index, layer in enumerate(plan.layers):
        for name in dict.fromkeys(tensor.name for tensor in layer.outputs):
            found[name].append(index)
    return found


def _source(reader: int, writers: Sequence[int], external: bool) -> int | None:
    """The layer whose result `reader` reads; None for an input of the engine and what only the reader writes."""
    place = bisect_left(writers, reader)
    if place:
        return writers[place - 1]
    return None if external else next((writer for writer in writers if writer > reader), None)


def _unique_names(plan: Plan) -> dict[tuple[str, int | None], str]:
    """A name for each tensor by the layer that writes it; what comes from outside keeps its own."""
    writers = _writers(plan)
    taken = {tensor.name for layer in plan.layers for tensor in (*layer.inputs, *layer.outputs)}
    external = {tensor.name for tensor in plan.inputs}
    external |= {
        t.name for n, x in enumerate(plan.layers) for t in x.inputs if _source(n, writers[t.name], False) is None
    }
    names: dict[tuple[str, int | None], str] = {}
    for name, layers in writers.items():
        for number, layer in enumerate(layers, 2 if name in external else 1):
            unique = name if number == 1 else f"{name} ({number})"
            while number > 1 and unique in taken:
                unique += "'"
            taken.add(unique)
            names[name, layer] = unique
    return names


def _rename(tensor: TensorInfo, name: str | None) -> TensorInfo:
    return tensor if name in (None, tensor.name) else tensor.model_copy(update={"name": name})


def _complete(written: TensorInfo, read: TensorInfo) -> TensorInfo:
    """The producer's record of a tensor, completed by the reader's."""
    missing = {key: value for key, value in read if getattr(written, key) is None and value is not None}
    return written.model_copy(update=missing) if missing else written
