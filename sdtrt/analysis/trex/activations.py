"""An activation: name, shape, type and memory layout of one input or output, with TREx's short names.

Where TREx is wrong this differs: BF16 is BF16 and not "FP32"; Bool has one byte and 4-bit types half of one; a format
that is not in TREx's table keeps its own text and its type is read from it; a size that is not known is NaN, not 0, and
a dimension of -1 makes it unknown, not negative.
"""

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from math import ceil, nan, prod
from typing import Any

import pandas as pd

from sdtrt.plan.layers import DTYPE_BITS, TensorInfo
from sdtrt.readers.formats.tensorrt.tensors import dtype_of

__all__ = ["Activation", "create_activations"]

# TREx's name of an unknown type.
UNKNOWN = "Unknown format"
PRECISIONS = {
    "float64": "FP64",
    "float32": "FP32",
    "float16": "FP16",
    "bfloat16": "BF16",
    **dict.fromkeys(("float8", "float8_e4m3fn", "float8_e5m2", "float8_e8m0"), "FP8"),
    "float4": "FP4",
    "bool": "Bool",
    **{f"{sign}int{bits}": f"{sign.upper()}INT{bits}" for sign in ("", "u") for bits in (2, 4, 8, 16, 32, 64)},
}
_WIDE = {"two": 2, "four": 4, "eight": 8, "sixteen": 16, "thirty-two": 32, "sixty-four": 64}


@lru_cache(maxsize=1024)
def short_format(text: str) -> str:
    """TREx's short name: "Thirty-two wide channel vectorized row major Int8 format" gives "Int8 NC/32HW32"."""
    text = text.replace(".", "").strip()
    dtype, words = dtype_of(text), text.lower()
    if dtype is None or "major" not in words:
        return PRECISIONS.get(text, text) or UNKNOWN
    spatial = "DHW" if "3 spatial dimensions" in words else "HW"
    wide = re.search(r"([a-z-]+) wide channel vectorized", words)
    channels = re.search(r"channel (?:%|==) (\d+)", words)
    if wide:
        lanes = _WIDE.get(wide[1], wide[1])
        layout = f"NC/{lanes}{spatial}{lanes}"
    elif "channel major" in words:
        padded = channels[1] if channels else ("1" if "column stride" in words else "")
        layout = f"N{spatial}C{padded}"
    else:
        layout = f"NC{spatial}"
    # TREx writes "Int8" here, and notebooks look for it at the start.
    return f"{PRECISIONS.get(dtype, dtype).replace('INT8', 'Int8')} {layout}"


class Activation:
    """One tensor of a layer, made from a record of the graph file."""

    __slots__ = ("data_size", "dtype", "format", "name", "precision", "shape")

    def __init__(self, raw_dict: Mapping[str, Any]) -> None:
        self.name: str = raw_dict["Name"]
        self.shape: list[int] = list(raw_dict["Dimensions"])
        text = " ".join(str(raw_dict[key]) for key in ("Format/Datatype", "Format", "Datatype") if key in raw_dict)
        self.dtype = dtype_of(text)
        self.format = short_format(text)
        self.precision = PRECISIONS.get(self.dtype, self.dtype) if self.dtype else UNKNOWN
        bits = DTYPE_BITS.get(self.dtype or "")
        # Bytes of one element; half of one for 4-bit types, NaN where the type is not known.
        self.data_size: float = nan if bits is None else bits / 8 if bits % 8 else bits // 8

    @property
    def size_bytes(self) -> float:
        """Bytes without padding; NaN when the type or a dimension is not known."""
        size = prod(self.shape) * self.data_size
        if size != size or any(side < 0 for side in self.shape):
            return nan
        return ceil(size)

    def tooltip(self) -> str:
        """Shape and format in two lines, as dot files write line breaks."""
        return f"{self.shape}\\n{self.format}"

    def __repr__(self) -> str:
        return f"{self.name}: {self.shape}x{self.format}"


def create_activations(layer: pd.Series) -> tuple[list[Activation], list[Activation]]:
    """Inputs and outputs of a row of `plan.df`."""
    return [Activation(tensor) for tensor in layer["Inputs"]], [Activation(tensor) for tensor in layer["Outputs"]]


def raw_tensor(tensor: TensorInfo) -> dict[str, Any]:
    """The record of the graph file for a tensor of a plan; -1 stands for a dimension, or a shape, that is not known."""
    dims = [-1] if tensor.shape is None else [-1 if side is None else side for side in tensor.shape]
    text = tensor.format or tensor.dtype or "Unknown"
    if tensor.dtype and dtype_of(text) != tensor.dtype:
        text = f"{text} {tensor.dtype}"
    return {"Name": tensor.name, "Dimensions": dims, "Format/Datatype": text}


def bytes_of(tensors: Sequence[Activation]) -> float:
    """Sum over distinct tensors: one that is listed twice is read once."""
    return sum({tensor.name: tensor.size_bytes for tensor in tensors}.values())
