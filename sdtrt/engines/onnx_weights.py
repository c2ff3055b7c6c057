"""The weights that an engine was built with, by parameter, from the ONNX file in its folder.

They are mapped into memory, not read. Of several equal small initializers the exporter keeps one; a parameter that was
merged so is found through the node that reads it, which is named after its module.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdtrt.engines.weights import EngineWeights
from sdtrt.errors import EngineError

if TYPE_CHECKING:
    import onnx
    from torch import Tensor

# The input of a node that is its weight or bias, directly or through views; None: the only initializer.
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

    def __init__(self, model: Path, component: str, rebuild: str) -> None:
        self._model, self._component, self._rebuild = model, component, rebuild
        self._base: Initializers | None = None
        self._changed: frozenset[str] = frozenset()

    @property
    def changed(self) -> frozenset[str]:
        """Parameters that differ from those of the build."""
        return self._changed

    def read(self, parameters: Iterable[str]) -> dict[str, Tensor]:
        """Weights of the build by parameter; a merged one has the value of the initializer that replaced it."""
        names, base = list(parameters), self._initializers()
        merged = base.merged(names)
        return {name: base[merged.get(name, name)] for name in names}

    def shared(self, parameters: Iterable[str]) -> frozenset[str]:
        """Those that are one tensor in the engine, so that none of them can change alone."""
        merged = self._initializers().merged(parameters)
        return frozenset(merged) | frozenset(merged.values())

    def _initializers(self) -> Initializers:
        if self._base is None:
            self._base = Initializers(self._model, self._component, self._rebuild)
        return self._base


class Initializers:
    """The weights in an ONNX file."""

    def __init__(self, path: Path, component: str, rebuild: str) -> None:
        import onnx

        self._path, self._component, self._rebuild = path, component, rebuild
        try:
            graph: onnx.GraphProto = onnx.load(path, load_external_data=False).graph
        except Exception as exc:  # of protobuf, or of the file system
            raise self._error("the weights of {} cannot be read", f"{path}: {str(exc)[:200]}", "refit-model") from exc
        self._tensors = {t.name: t for t in graph.initializer}
        self._nodes: dict[str, list[onnx.NodeProto]] = {}
        self._producers: dict[str, onnx.NodeProto] = {}
        for node in graph.node:
            module = node.name.rpartition("/")[0].strip("/").replace("/", ".")
            self._nodes.setdefault(module, []).append(node)
            self._producers |= dict.fromkeys(node.output, node)
        self._files: dict[str, Any] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._tensors

    def __getitem__(self, name: str) -> Tensor:
        """The weight as it is in the graph; its memory is that of the file until it is written to."""
        import onnx
        import onnx_ir as ir
        import torch

        tensor = self._tensors[name]
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            return torch.from_numpy(onnx.numpy_helper.to_array(tensor).copy())
        external = {entry.key: entry.value for entry in tensor.external_data}
        dtype = ir.tensor_adapters.to_torch_dtype(ir.DataType(tensor.data_type))
        offset, count = int(external.get("offset", 0)), prod(tensor.dims)
        mapped = self._map(external["location"])
        if offset + count * dtype.itemsize > mapped.nbytes:
            raise self._error("the weights of {} are cut off", f"{mapped.nbytes} bytes", "refit-model")
        return torch.frombuffer(mapped, dtype=dtype, count=count, offset=offset).reshape(tuple(tensor.dims))

    def get(self, name: str) -> Tensor | None:
        """The weight, or None when the graph has none of that name."""
        return self[name] if name in self._tensors else None

    def merged(self, parameters: Iterable[str]) -> dict[str, str]:
        """For each parameter that is no initializer, the equal one that replaced it; EngineError without one."""
        return {name: self._replacement(name) for name in parameters if name not in self._tensors}

    def _replacement(self, name: str) -> str:
        module, _, kind = name.rpartition(".")
        for node in self._nodes.get(module, ()):
            index = _INPUTS.get(node.op_type, {}).get(kind, -1)
            inputs = list(node.input) if index is None else list(node.input)[index : index + 1] if index >= 0 else []
            roots = [r for i in inputs if "." in (r := self._root(i)) and r in self._tensors]
            if len(roots) == 1:
                return roots[0]
        raise self._error("the exported graph of {} has no initializer for a parameter", name, "refit-merged")

    def _root(self, value: str) -> str:
        while (node := self._producers.get(value)) is not None and node.op_type in _VIEWS:
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
            message.format(self._component),
            slug=slug,
            received=received,
            expected=f"{self._path.name} and its weights, as they were built",
            hint=f"rebuild: {self._rebuild} --force",
        )
