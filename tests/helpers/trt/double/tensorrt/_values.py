"""Dims, Weights, IHostMemory and the types of tensors."""

from __future__ import annotations

import ctypes
from math import prod

import numpy as np
import onnx

from tensorrt._enums import DataType
from tensorrt._strict import Bound, bound

# ONNX's number of a type: TensorRT's name of it.
_ONNX = {
    onnx.TensorProto.FLOAT: "FLOAT",
    onnx.TensorProto.FLOAT16: "HALF",
    onnx.TensorProto.BFLOAT16: "BF16",
    onnx.TensorProto.INT64: "INT64",
    onnx.TensorProto.INT32: "INT32",
    onnx.TensorProto.INT8: "INT8",
    onnx.TensorProto.UINT8: "UINT8",
    onnx.TensorProto.BOOL: "BOOL",
    onnx.TensorProto.FLOAT8E4M3FN: "FP8",
    onnx.TensorProto.INT4: "INT4",
}
_BITS = {"FLOAT": 32, "INT32": 32, "HALF": 16, "BF16": 16, "INT64": 64, "INT4": 4, "FP4": 4}
_NUMPY = {"FLOAT": np.float32, "HALF": np.float16, "INT8": np.int8, "INT32": np.int32, "INT64": np.int64}


def data_type(elem_type: int):
    """The DataType of an ONNX element type; None when TensorRT has none."""
    name = _ONNX.get(elem_type)
    return None if name is None else getattr(DataType, name)


def onnx_type(dtype) -> int:
    """The other way round."""
    return next(number for number, name in _ONNX.items() if name == dtype.name)


def nbytes(dtype, count: int) -> int:
    """Bytes of `count` elements."""
    return -(-count * _BITS.get(dtype.name, 8) // 8)


def at_address(pointer: int, size: int) -> memoryview:
    """The memory itself, not a copy."""
    return memoryview((ctypes.c_ubyte * size).from_address(pointer)).cast("B")


@bound
class Dims(Bound):
    """A shape; compares with tuples and lists."""

    MAX_DIMS = property(lambda self: 8)

    def __init__(self, shape=()):
        if len(shape) > 8:
            raise ValueError("The number of dimensions exceeds the maximum of 8")
        self._sizes = tuple(int(size) for size in shape)

    def __len__(self):
        return len(self._sizes)

    def __getitem__(self, index):
        return self._sizes[index]

    def __iter__(self):
        return iter(self._sizes)

    def __eq__(self, other):
        return self._sizes == tuple(other)

    __hash__ = None

    def __repr__(self):
        return f"({', '.join(map(str, self._sizes))})"


@bound
class Weights(Bound):
    """A type, an address and a count, or a view of a numpy array. Nothing is copied: the memory must live on."""

    def __init__(self, *args, **kwargs):
        names = ("a",) if (args and isinstance(args[0], np.ndarray)) or "a" in kwargs else ("type", "ptr", "count")
        given = dict(zip(names, args, strict=False)) | kwargs
        if "a" in given:
            self._array = given["a"]
            self._dtype = next(getattr(DataType, n) for n, t in _NUMPY.items() if self._array.dtype == t)
            self._pointer, self._size = self._array.ctypes.data, self._array.size
        else:
            self._dtype = given.get("type", DataType.FLOAT)
            self._pointer, self._size = int(given.get("ptr", 0)), int(given.get("count", 0))

    @property
    def dtype(self):
        return self._dtype

    @property
    def size(self):
        return self._size

    @property
    def nbytes(self):
        return nbytes(self._dtype, self._size)

    def __len__(self):
        return self._size

    def numpy(self):
        kind = _NUMPY.get(self._dtype.name)
        if kind is None or not self._pointer:
            return self
        return np.frombuffer(at_address(self._pointer, self.nbytes), kind)

    def _bytes(self) -> bytes:
        return bytes(at_address(self._pointer, self.nbytes))


@bound
class IHostMemory(Bound, bytes):
    """Memory of the library: what takes a buffer takes it, and nothing else of `bytes` is offered."""

    @classmethod
    def _make(cls, data: bytes):
        made = bytes.__new__(cls, data)
        vars(made).update(_alive=True, _size=len(data))
        return made

    @property
    def nbytes(self):
        return self._size

    @property
    def dtype(self):
        return DataType.INT8

    def __getattribute__(self, name):
        if hasattr(bytes, name) and not name.startswith("__"):
            raise AttributeError(f"'IHostMemory' object has no attribute '{name}'")
        return object.__getattribute__(self, name)

    def __len__(self):
        raise TypeError("object of type 'IHostMemory' has no len()")

    def __getitem__(self, index):
        raise TypeError("'IHostMemory' object is not subscriptable")


def volume(shape) -> int:
    """Number of elements."""
    return prod(shape)
