"""TensorRT layers joined to an ONNX graph where metadata does not say it all.

Before the shared join:

- A layer without metadata (TensorRT 8.2 to 8.5) implements the nodes in its name: "Conv_0 + Relu_1", "PWN(Sigmoid_2)".
- A region that Myelin runs in one piece, "{ForeignNode[a...b]}", names its first and last node: it implements what lies
  between them in the ONNX file and in no other layer. TensorRT lists them in the order of the file.
- A size that the engine calls dynamic is taken from a layer that knows it, or from the ONNX tensor after which Myelin
  named its own ("x.1_4_myl5" was x), when all known sizes agree.

After it, copies take the module of the layer that they work for ("Reformatting CopyNode for Input Tensor 0 to ..."),
and views without a node move nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from sdtrt import costs as shared
from sdtrt.plan.layers import Layer, Plan, TensorInfo
from sdtrt.readers.formats.tensorrt.tensors import PROFILE

if TYPE_CHECKING:
    from sdtrt.costs import GraphCosts

_FOREIGN = "{ForeignNode["
_MYELIN_TENSOR = re.compile(r"(?:\.\d+)?(?:_\d+)?_myl\d+$|'+$")
_LONGEST = 4000
_COPY = re.compile(r"Reformatting CopyNode for (?:Input|Output) Tensor \d+ (?:to|of|from) (.+)", re.S)
_PREFIX = ("copied_squeeze_after_", "squeeze_after_", "unsqueeze_node_after_", "reshape_after_", "reshape_before_")
_PIECES = re.compile(r" \+ |PWN\(|\), | , |, |\)$")


def join(plan: Plan, costs: GraphCosts) -> Plan:
    """`plan` with the nodes, costs and sizes of the graph."""
    named = [x if x.nodes or x.name.startswith(_FOREIGN) else _named(x, costs) for x in plan.layers]
    layers = _foreign(named, costs)
    assumed = sum(new.nodes != old.nodes for new, old in zip(layers, plan.layers, strict=True))
    sized = _sizes(layers, costs)
    layers = [_with_sizes(x, sized) for x in layers]
    notes = (f"{assumed} layers have no metadata; their ONNX nodes were taken from their names",) if assumed else ()
    ends = {"inputs": tuple(map(sized, plan.inputs)), "outputs": tuple(map(sized, plan.outputs))}
    ready = plan.model_copy(update={"layers": tuple(layers), "notes": (*plan.notes, *notes), **ends})
    joined = shared.join(ready, costs)
    kept = [x.model_copy(update={"bytes_moved": 0}) if x.kind == "shape" and not x.nodes else x for x in joined.layers]
    return joined.model_copy(update={"layers": tuple(owned(kept))})


def _named(layer: Layer, costs: GraphCosts) -> Layer:
    if layer.kind == "reformat" and layer.name.startswith("Reformatting"):
        return layer
    name = PROFILE.sub("", layer.name)
    pieces = [name, *_PIECES.split(name)]
    nodes = tuple(dict.fromkeys(p for p in pieces if p in costs.nodes))
    return layer.model_copy(update={"nodes": nodes}) if nodes else layer


def _foreign(layers: list[Layer], costs: GraphCosts) -> list[Layer]:
    order = {name: index for index, name in enumerate(costs.nodes)}
    names = list(order)
    taken = {n for x in layers for n in x.nodes}
    made = []
    for layer in layers:
        ends = PROFILE.sub("", layer.name).removeprefix(_FOREIGN).removesuffix("]}").partition("...")[::2]
        first, last = map(order.get, ends) if layer.name.startswith(_FOREIGN) and not layer.nodes else (None, None)
        if first is not None and last is not None:
            nodes = tuple(n for n in names[min(first, last) : max(first, last) + 1] if n not in taken)
            taken |= set(nodes)
            layer = layer.model_copy(update={"nodes": nodes})
        made.append(layer)
    return made


def _sizes(layers: Sequence[Layer], costs: GraphCosts) -> Callable[[TensorInfo], TensorInfo]:
    """What gives a tensor sizes in the place of dynamic ones, where those are known."""
    known = {t.name: t.shape for x in layers for t in (*x.inputs, *x.outputs) if t.shape and None not in t.shape}

    def sized(tensor: TensorInfo) -> TensorInfo:
        if tensor.shape is None or None not in tensor.shape:
            return tensor
        origin = costs.tensors.get(tensor.name) or costs.tensors.get(_MYELIN_TENSOR.sub("", tensor.name[:_LONGEST]))
        for shape in (origin.shape if origin else None, known.get(tensor.name)):
            if shape is not None and _agree(tensor.shape, shape):
                return tensor.model_copy(update={"shape": shape})
        return tensor

    return sized


def _with_sizes(layer: Layer, sized: Callable[[TensorInfo], TensorInfo]) -> Layer:
    update = {"inputs": tuple(map(sized, layer.inputs)), "outputs": tuple(map(sized, layer.outputs))}
    return layer.model_copy(update=update)


def _agree(dynamic: tuple[int | None, ...], shape: tuple[int | None, ...]) -> bool:
    return len(dynamic) == len(shape) and all(d in (None, s) for d, s in zip(dynamic, shape, strict=True))


def owner_of(name: str) -> str | None:
    """Name of the layer that a copy works for, or None when it is no such copy."""
    found = _COPY.match(name)
    if found:
        return found.group(1)
    return next((name.removeprefix(p) for p in _PREFIX if name.startswith(p)), None)


def owned(layers: Sequence[Layer]) -> list[Layer]:
    """Copies take the module of the layer that they work for, else of the layer that reads what they write."""
    modules = {PROFILE.sub("", x.name): x.module for x in layers if x.module}
    readers = {t.name: x.module for x in reversed(layers) if x.module for t in x.inputs}
    return [_with_module(x, modules, readers) if not x.nodes else x for x in layers]


def _with_module(layer: Layer, modules: Mapping[str, str], readers: Mapping[str, str]) -> Layer:
    owner = owner_of(PROFILE.sub("", layer.name))
    module = modules.get(owner) if owner else None
    if module is None and layer.kind in ("reformat", "copy", "shape"):
        module = next((readers[t.name] for t in layer.outputs if t.name in readers), None)
    return layer.model_copy(update={"module": module}) if module else layer
