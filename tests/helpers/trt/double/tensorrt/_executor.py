"""Runs a network with ONNX Runtime on tensors at given addresses, and finds out shapes and types."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort

from tensorrt._values import data_type, nbytes, volume

Shape = tuple[int, ...]


class Executor:
    """One set of weights; a refit makes another."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        self._bytes = model.SerializeToString()
        self._session = _session(self._bytes)
        self.inputs = {value.name: value for value in model.graph.input}
        self.outputs = {value.name: value for value in model.graph.output}
        self._shapes: dict[Any, dict[str, Shape]] = {}
        self._tensors: dict[Any, dict[str, tuple[Any, Shape]]] = {}

    def run(self, shapes: Mapping[str, Shape], addresses: Mapping[str, int]) -> None:
        """Read the inputs and write the outputs where they lie; RuntimeError as ONNX Runtime raises it."""
        sizes = dict(shapes) | self.output_shapes(shapes)
        binding = self._session.io_binding()
        for name in self.inputs:
            binding.bind_input(name, "cpu", 0, self._type(name), sizes[name], addresses[name])
        for name in self.outputs:
            binding.bind_output(name, "cpu", 0, self._type(name), sizes[name], addresses[name])
        self._session.run_with_iobinding(binding)

    def output_shapes(self, shapes: Mapping[str, Shape]) -> dict[str, Shape]:
        """Shapes of the outputs: by inference, or where that does not tell, by running on zeros."""
        key = tuple(sorted(shapes.items()))
        if key not in self._shapes:
            found = _inferred(self.model, shapes)
            if any(d is None for name in self.outputs for d in found.get(name, (None,))):
                arrays = self._session.run(None, _zeros(self.inputs, shapes))
                found = {n: a.shape for n, a in zip(self.outputs, arrays, strict=True)}
            self._shapes[key] = {name: tuple(found[name]) for name in self.outputs}  # type: ignore[misc]
        return self._shapes[key]

    def check(self, shapes: Mapping[str, Shape]) -> str | None:
        """Why the network cannot run at these shapes, by inference alone; None when nothing speaks against it."""
        try:
            _inferred(self.model, shapes, strict=True)
        except onnx.shape_inference.InferenceError as exc:
            return str(exc).strip().splitlines()[-1]
        return None

    def tensors(self, shapes: Mapping[str, Shape]) -> dict[str, tuple[Any, Shape]]:
        """{tensor: (type, shape)} of everything that is computed, found by running with nothing fused."""
        key = tuple(sorted(shapes.items()))
        if key not in self._tensors:
            model = onnx.load_from_string(self._bytes)
            names = [o for node in model.graph.node for o in node.output if o]
            del model.graph.output[:]
            model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
            session = _session(model.SerializeToString(), optimize=False)
            values = session.run_with_ort_values(
                None, {n: ort.OrtValue.ortvalue_from_numpy(a) for n, a in _zeros(self.inputs, shapes).items()}
            )
            found = {n: (data_type(v.element_type()), tuple(v.shape())) for n, v in zip(names, values, strict=True)}
            self._tensors[key] = found | {n: (data_type(self._type(n)), tuple(shapes[n])) for n in self.inputs}
        return self._tensors[key]

    def static_shape(self, name: str) -> Shape:
        """The declared shape, with -1 for what varies."""
        value = self.inputs.get(name) or self.outputs[name]
        return tuple(d.dim_value if d.HasField("dim_value") else -1 for d in value.type.tensor_type.shape.dim)

    def dtype(self, name: str) -> Any:
        """The type of an input or output."""
        return data_type(self._type(name))

    def nbytes(self, name: str, shape: Shape) -> int:
        """Bytes of an input or output of this shape."""
        return nbytes(self.dtype(name), volume(shape))

    def _type(self, name: str) -> int:
        value = self.inputs.get(name) or self.outputs[name]
        return int(value.type.tensor_type.elem_type)


def _session(model: bytes, optimize: bool = True) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    if not optimize:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _zeros(inputs: Mapping[str, onnx.ValueInfoProto], shapes: Mapping[str, Shape]) -> dict[str, np.ndarray]:
    kinds = {n: onnx.helper.tensor_dtype_to_np_dtype(v.type.tensor_type.elem_type) for n, v in inputs.items()}
    return {n: np.zeros(shapes[n], kind) for n, kind in kinds.items()}


def _inferred(
    model: onnx.ModelProto, shapes: Mapping[str, Shape], strict: bool = False
) -> dict[str, tuple[int | None, ...]]:
    """Shapes of the outputs when the inputs have these; None for a size that inference leaves open."""
    known = onnx.ModelProto()
    known.CopyFrom(_without_weights(model))
    del known.graph.value_info[:]
    for value in known.graph.input:
        if value.name in shapes:
            dims = value.type.tensor_type.shape.dim
            for dim, size in zip(dims, shapes[value.name], strict=True):
                dim.dim_value = size
    for value in known.graph.output:
        value.type.tensor_type.ClearField("shape")
    done = onnx.shape_inference.infer_shapes(known, strict_mode=strict, data_prop=True)
    return {
        value.name: tuple(d.dim_value if d.HasField("dim_value") else None for d in value.type.tensor_type.shape.dim)
        if value.type.tensor_type.HasField("shape")
        else (None,)
        for value in done.graph.output
    }


def _without_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with its large weights as inputs of fixed shape: inference need not copy them."""
    light = onnx.ModelProto()
    light.opset_import.extend(model.opset_import)
    light.ir_version = model.ir_version
    graph = light.graph
    graph.name = model.graph.name
    graph.node.extend(model.graph.node)
    graph.input.extend(model.graph.input)
    graph.output.extend(model.graph.output)
    for tensor in model.graph.initializer:
        if volume(tensor.dims) <= 64:
            graph.initializer.append(tensor)
        else:
            graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    return light
