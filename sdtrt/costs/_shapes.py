"""Shape, type and, where small, value of every tensor of an ONNX graph at concrete input sizes. Weights stay unread.

The graph is walked once. Each node goes through ONNX's own inference with the shapes, and the small values, of its
inputs: a chain such as Shape, Slice, Concat, Reshape is then computed, not guessed, and the symbolic shapes that an
exporter or a pass left in the file, which can be stale, play no part. `infer_shapes(data_prop=True)` over the whole
file does not replace this: in onnx 1.23 it loses values at Div and Where, has no way past an operator without
inference, and its first error ends it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper, shape_inference
from onnx.reference import ReferenceEvaluator

from sdtrt.errors import GraphError

# Shapes, axes and scales are computed from tensors of a few elements; masks and weights are larger.
VALUE_ELEMENTS = 1024
_BITS = {"INT4": 4, "UINT4": 4, "FLOAT4E2M1": 4, "INT2": 2, "UINT2": 2}
_INT64 = int(onnx.TensorProto.INT64)
# Operators in use for which onnx has no inference, and the input that their output has the last size of; the other
# sizes are the first input's.
_UNINFERRED = {"GroupNormalization": 0, "MultiHeadAttention": 2}


@dataclass(frozen=True)
class Fact:
    """One tensor. `constant`: computed from weights and constants alone. `value`: known at these input sizes."""

    shape: tuple[int, ...]
    dtype: int
    constant: bool = False
    value: np.ndarray[Any, Any] | None = None

    @property
    def elements(self) -> int:
        """Number of elements."""
        return prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes at the tensor's own type."""
        name = onnx.TensorProto.DataType.Name(self.dtype)
        bits = _BITS.get(name) or helper.tensor_dtype_to_np_dtype(self.dtype).itemsize * 8
        return -(-self.elements * bits // 8)


def resolve(
    model: onnx.ModelProto, shapes: Mapping[str, tuple[int, ...]], failed: list[GraphError] | None = None
) -> dict[str, Fact]:
    """Facts of all tensors by name.

    Raises:
        GraphError: the output shapes of a node are unknown, unless `failed` is a list: it then takes the errors, and
            the tensors that depend on such a node have no facts.
    """
    facts = {t.name: _weight(t) for t in model.graph.initializer}
    facts |= {i.name: _input(i, shapes) for i in model.graph.input if i.name not in facts}
    for node in model.graph.node:
        try:
            facts |= _outputs(node, facts, list(model.opset_import))
        except Exception as exc:  # inference and evaluation raise errors of many types
            error = GraphError(
                f"the output shapes of the node {node.name} ({node.op_type}) are not known",
                slug="shape-unknown",
                received=f"{type(exc).__name__}: {str(exc).strip()}",
                expected=f"an operator whose outputs follow from {[facts[i].shape for i in node.input if i in facts]}",
            )
            if failed is None:
                raise error from exc
            failed.append(error)
    return facts


def _weight(tensor: onnx.TensorProto) -> Fact:
    shape = tuple(tensor.dims)
    readable = tensor.data_location != onnx.TensorProto.EXTERNAL and prod(shape) <= VALUE_ELEMENTS
    return Fact(shape, tensor.data_type, True, numpy_helper.to_array(tensor) if readable else None)


def _input(info: onnx.ValueInfoProto, shapes: Mapping[str, tuple[int, ...]]) -> Fact:
    tensor = info.type.tensor_type
    dims = [d.dim_value if d.HasField("dim_value") else None for d in tensor.shape.dim]
    fixed = tuple(d for d in dims if d is not None)
    shape = shapes.get(info.name, fixed if len(fixed) == len(dims) else None)
    if shape is None or len(shape) != len(dims) or any(d not in (None, s) for d, s in zip(dims, shape, strict=True)):
        size = "x".join(d.dim_param or str(d.dim_value or "?") for d in tensor.shape.dim)
        raise GraphError(
            f"the size of the input {info.name} {'is missing' if shape is None else 'does not fit the graph'}",
            slug="input-shape",
            received=None if shape is None else "x".join(map(str, shape)) or "scalar",
            expected=f"{info.name}={size or 'scalar'}, with a number for each name",
        )
    return Fact(tuple(shape), tensor.elem_type)


def _outputs(node: onnx.NodeProto, facts: Mapping[str, Fact], opsets: list[onnx.OperatorSetIdProto]) -> dict[str, Fact]:
    feeding = {name: facts[name] for name in node.input if name}
    constant = all(f.constant for f in feeding.values())
    if node.op_type in ("Shape", "Size"):
        size = _shape_value(node, feeding[node.input[0]].shape)
        return {node.output[0]: Fact(size.shape, _INT64, constant, size)}
    if node.op_type in _UNINFERRED:
        axes = [len(feeding[name].shape) for name in node.input[:3] if name]
        if node.op_type == "MultiHeadAttention" and (axes != [3, 3, 3] or len(node.output) > 1):
            raise ValueError("queries, keys and values in one tensor, of other axes, or with those of a past")
        like, last = (feeding[node.input[i]] for i in (0, _UNINFERRED[node.op_type]))
        return {node.output[0]: Fact((*like.shape[:-1], last.shape[-1]), like.dtype, constant)}
    types = _infer(node, feeding, opsets)
    computable = all(f.value is not None for f in feeding.values())
    if computable and all(t is None or t.elements <= VALUE_ELEMENTS for t in types.values()):
        model = _single(node, feeding, opsets)
        results = ReferenceEvaluator(model).run(None, {n: f.value for n, f in feeding.items()})
        arrays = {n: np.asarray(r) for n, r in zip(filter(None, node.output), results, strict=True)}
        return {n: Fact(a.shape, helper.np_dtype_to_tensor_dtype(a.dtype), constant, a) for n, a in arrays.items()}
    unknown = [n for n, t in types.items() if t is None]
    if unknown:
        raise ValueError(f"{unknown} cannot be inferred")
    return {n: Fact(t.shape, t.dtype, constant) for n, t in types.items() if t is not None}


def _shape_value(node: onnx.NodeProto, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    """The result of Shape or Size, the only two operators that make a value of a shape."""
    ends = {a.name: a.i for a in node.attribute}
    part = shape[ends.get("start", 0) : ends.get("end", len(shape))]
    return np.array(prod(shape) if node.op_type == "Size" else part, dtype=np.int64)


def _infer(
    node: onnx.NodeProto, feeding: Mapping[str, Fact], opsets: list[onnx.OperatorSetIdProto]
) -> dict[str, Fact | None]:
    model = _single(node, feeding, opsets)
    known = (numpy_helper.from_array(f.value, n) for n, f in feeding.items() if f.value is not None)
    model.graph.initializer.extend(known)
    found = shape_inference.infer_shapes(model, strict_mode=True)
    return {o.name: _fact(o.type) for o in found.graph.output}


def _single(
    node: onnx.NodeProto, feeding: Mapping[str, Fact], opsets: list[onnx.OperatorSetIdProto]
) -> onnx.ModelProto:
    """The node as a model, which is what ONNX infers and evaluates at the graph's own opset."""
    inputs = [helper.make_tensor_value_info(n, f.dtype, f.shape) for n, f in feeding.items()]
    outputs = [onnx.ValueInfoProto(name=n) for n in node.output if n]
    return helper.make_model(helper.make_graph([node], "node", inputs, outputs), opset_imports=opsets)


def _fact(found: onnx.TypeProto | None) -> Fact | None:
    if found is None or not found.tensor_type.HasField("shape"):
        return None
    dims = found.tensor_type.shape.dim
    known = all(d.HasField("dim_value") for d in dims)
    return Fact(tuple(d.dim_value for d in dims), found.tensor_type.elem_type) if known else None
