"""Inputs and outputs of a TensorRT engine: `Bindings`, a list of names, up to 10; `I/O Tensors` with sizes in 11."""

from collections.abc import Sequence
from typing import Any

from sdtrt.plan.layers import Layer, TensorInfo
from sdtrt.readers.documents import Omissions
from sdtrt.readers.formats.tensorrt.tensors import dims_of, tensor_of

Bindings = tuple[tuple[TensorInfo, ...], tuple[TensorInfo, ...], dict[str, tuple[int, ...]]]


def read(data: Any, layers: Sequence[Layer], profile: int, omitted: Omissions) -> Bindings:
    """Inputs, outputs, and the shapes of inputs whose sizes are all known.

    Sizes are those at which the engine's layers were inspected, else the profile's optimum.

    Args:
        data: the parsed graph file.
        layers: the engine's layers.
        profile: number of the optimization profile.
        omitted: takes entries of a wrong type.
    """
    listed = data if isinstance(data, dict) else {}
    key = "I/O Tensors" if "I/O Tensors" in listed else "Bindings"
    entries = listed.get(key) or []
    if not isinstance(entries, list):
        omitted.add(f"{key} that is not a list", "the file")
        entries = []
    named = {t.name: (t, raw) for raw in entries if (t := tensor_of(raw, omitted, key)) is not None}
    consumed, written = _seen(layers)
    inputs, outputs, shapes = [], [], {}
    for name, (tensor, raw) in named.items():
        sized = _sized(tensor, consumed.get(name) or written.get(name), _optimum(raw, profile, omitted))
        mode = raw.get("IOMode") if isinstance(raw, dict) else None
        if (isinstance(mode, str) and mode.lower() == "output") or name in written:
            outputs.append(sized)
            continue
        inputs.append(sized)
        sizes = tuple(s for s in sized.shape or () if s is not None)
        if sized.shape is not None and len(sizes) == len(sized.shape):
            shapes[name] = sizes
    return tuple(inputs), tuple(outputs), shapes


def _seen(layers: Sequence[Layer]) -> tuple[dict[str, TensorInfo], dict[str, TensorInfo]]:
    """Tensors that layers read and write, by name, as they are known best."""
    consumed: dict[str, TensorInfo] = {}
    written: dict[str, TensorInfo] = {}
    for layer in layers:
        for side, tensors in ((consumed, layer.inputs), (written, layer.outputs)):
            for tensor in tensors:
                old = side.get(tensor.name)
                if old is None or old.shape is None or None in old.shape:
                    side[tensor.name] = tensor
    return consumed, written


def _optimum(raw: Any, profile: int, omitted: Omissions) -> tuple[int | None, ...] | None:
    infos = raw.get("ProfileInfo") if isinstance(raw, dict) else None
    if not isinstance(infos, list) or not profile < len(infos) or not isinstance(infos[profile], dict):
        return None
    return dims_of(infos[profile].get("OptShape"), omitted, "ProfileInfo")


def _sized(tensor: TensorInfo, seen: TensorInfo | None, best: tuple[int | None, ...] | None) -> TensorInfo:
    """The tensor with what its layers, its profile or the list itself knows, in this order."""
    seen = seen or TensorInfo(name=tensor.name)
    shapes: list[tuple[int | None, ...]] = [s for s in (seen.shape, best, tensor.shape) if s is not None]
    shape = next((s for s in shapes if None not in s), shapes[0] if shapes else None)
    dtype, layout = tensor.dtype or seen.dtype, tensor.format or seen.format
    return TensorInfo.model_construct(name=tensor.name, shape=shape, dtype=dtype, format=layout)
