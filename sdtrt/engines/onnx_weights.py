"""The weights that an engine was built with, by parameter, out of the ONNX file in its folder.

They are mapped into memory, not read: what is not asked for costs nothing. The exporter keeps one of several small
initializers that are equal; a parameter that was merged so is found by the node that reads it, which is named after its
module.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdtrt.engines.weights import EngineWeights
from sdtrt.errors import EngineError

if TYPE_CHECKING:
    import onnx
    import torch
    from torch import Tensor

# Which of its inputs, or of those reached through views, a node's weight and bias are; None: the only initializer.
_INPUTS: dict[str, dict[str, int | None]] = {
    "Conv": {"weight": 1, "bias": 2},
    "Gemm": {"weight": 1, "bias": 2},
    "LayerNormalization": {"weight": 1, "bias": 2},
    "Gather": {"weight": 0},
    "MatMul": {"weight": 1},
    "Mul": {"weight": None},
    "Add": {"bias": None},
}
_VIEWS = {"Unsqueeze", "Reshape", "Transpose", "Cast", "Identity"}


class OnnxWeights(EngineWeights):
    """What all engines of ONNX files share; `model` is that file. Backends implement `put` and set `_changed`."""

    def __init__(self, model: Path, what: str, rebuild: str) -> None:
        self._model, self._what, self._rebuild = model, what, rebuild
        self._base: Initializers | None = None
        self._changed: frozenset[str] = frozenset()

    @property
    def changed(self) -> frozenset[str]:
        """Parameters that differ from those of the build."""
        return self._changed

    def read(self, parameters: Iterable[str]) -> dict[str, Tensor]:
        """Weights of the build by parameter; those that the exporter merged are that of the one that stands for it."""
        names, base = list(parameters), self._initializers()
        merged = base.merged(names)
        return {name: base[merged.get(name, name)] for name in names}

    def shared(self, parameters: Iterable[str]) -> frozenset[str]:
        """Those that are one tensor in the engine, so that none of them can change alone."""
        merged = self._initializers().merged(parameters)
        return frozenset(merged) | frozenset(merged.values())

    def _initializers(self) -> Initializers:
        if self._base is None:
            self._base = Initializers(self._model, self._what, self._rebuild)
        return self._base


class Initializers:
    """The weights in an ONNX file."""

    def __init__(self, path: Path, what: str, rebuild: str) -> None:
        import onnx

        self._path, self._what, self._rebuild = path, what, rebuild
        try:
            graph: onnx.GraphProto = onnx.load(path, load_external_data=False).graph
        except Exception as exc:  # protobuf has its own errors, and the file system others
            raise self._error("the weights of {} cannot be read", f"{path}: {str(exc)[:200]}", "refit-model") from exc
        self._tensors = {t.name: t for t in graph.initializer}
        self._nodes: dict[str, list[onnx.NodeProto]] = {}
        self._makers: dict[str, onnx.NodeProto] = {}
        for node in graph.node:
            module = node.name.rpartition("/")[0].strip("/").replace("/", ".")
            self._nodes.setdefault(module, []).append(node)
            self._makers |= dict.fromkeys(node.output, node)
        self._files: dict[str, Any] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._tensors

    def __getitem__(self, name: str) -> Tensor:
        """The weight as the graph has it; its memory is that of the file until it is written to."""
        import onnx
        import torch

        tensor = self._tensors[name]
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            return torch.from_numpy(onnx.numpy_helper.to_array(tensor).copy())
        where = {entry.key: entry.value for entry in tensor.external_data}
        dtype = _torch_type(tensor.data_type)
        offset, count = int(where.get("offset", 0)), _volume(tensor.dims)
        mapped = self._map(where["location"])
        if offset + count * dtype.itemsize > mapped.nbytes:
            raise self._error("the weights of {} are cut off", f"{mapped.nbytes} bytes", "refit-model")
        return torch.frombuffer(mapped, dtype=dtype, count=count, offset=offset).reshape(tuple(tensor.dims))

    def get(self, name: str) -> Tensor | None:
        """The weight, or None when the graph has none of that name."""
        return self[name] if name in self._tensors else None

    def merged(self, parameters: Iterable[str]) -> dict[str, str]:
        """For each parameter that is no initializer: the equal one that stands for it. EngineError if there is none."""
        found = {}
        for name in parameters:
            if name not in self._tensors:
                found[name] = self._stand_in(name)
        return found

    def _stand_in(self, name: str) -> str:
        module, _, kind = name.rpartition(".")
        for node in self._nodes.get(module, ()):
            index = _INPUTS.get(node.op_type, {}).get(kind, -1)
            inputs = list(node.input) if index is None else list(node.input)[index : index + 1] if index >= 0 else []
            roots = [r for i in inputs if "." in (r := self._root(i)) and r in self._tensors]
            if len(roots) == 1:
                return roots[0]
        raise self._error("the exported graph of {} has no initializer for a parameter", name, "refit-merged")

    def _root(self, value: str) -> str:
        while (node := self._makers.get(value)) is not None and node.op_type in _VIEWS:
            value = node.input[0]
        return value

    def _map(self, location: str) -> Any:
        import numpy as np

        if location not in self._files:
            try:
                self._files[location] = np.memmap(self._path.with_name(location), np.uint8, mode="c")
            except (OSError, ValueError) as exc:
                raise self._error("the weights of {} cannot be read", f"{location}: {exc}", "refit-model") from exc
        return self._files[location]

    def _error(self, message: str, received: str, slug: str) -> EngineError:
        return EngineError(
            message.format(self._what),
            slug=slug,
            received=received,
            expected=f"{self._path.name} and its weights, as they were built",
            hint=f"rebuild: {self._rebuild} --force",
        )


def _volume(dims: Iterable[int]) -> int:
    count = 1
    for size in dims:
        count *= size
    return count


def _torch_type(data_type: int) -> torch.dtype:
    import onnx
    import torch

    kinds = onnx.TensorProto
    known: dict[int, torch.dtype] = {
        kinds.FLOAT: torch.float32,
        kinds.FLOAT16: torch.float16,
        kinds.BFLOAT16: torch.bfloat16,
        kinds.INT64: torch.int64,
        kinds.INT32: torch.int32,
        kinds.INT8: torch.int8,
        kinds.BOOL: torch.bool,
    }
    return known[data_type]
