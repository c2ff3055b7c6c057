"""Tensors of TensorRT's inspector: names, sizes, and the dozens of strings for type and layout.

TensorRT 8 to 10 write one string, `Format/Datatype`: the layout in words with a type in it where the layout is known
("Channel major FP16 format where channel % 8 == 0"), else the type ("Half"). TensorRT 11 writes `Datatype` and
`Format`, and `Strides` or `StrideOrder`. A type is found by the word for it, so that a new layout needs no new rule; a
string without one ("Unknown format", "N/A due to dynamic shapes") has no type.
"""

import re
from functools import lru_cache
from math import prod
from typing import Any

from sdtrt.plan.layers import TensorInfo
from sdtrt.readers.documents import Omissions

PROFILE = re.compile(r" ?\[profile (\d+)\]")
_WORDS_BY_TYPE = {
    "bfloat16": "bfloat16 bf16",
    "float16": "float16 fp16 half",
    "float8": "float8 fp8 e4m3",
    "float8_e5m2": "e5m2",
    "float8_e8m0": "e8m0",
    "float4": "float4 fp4 e2m1",
    "complex128": "doublecomplex",
    "complex64": "floatcomplex",
    "float64": "float64 fp64 double",
    "float32": "tf32 fp32 float",
    "bool": "bool",
    **{name: name for bits in (2, 4, 8, 16, 32, 64) for name in (f"uint{bits}", f"int{bits}")},
}
TYPE_WORDS = {word: dtype for dtype, words in _WORDS_BY_TYPE.items() for word in words.split()}
_WORD = re.compile("|".join(sorted(TYPE_WORDS, key=len, reverse=True)), re.I)
_MAX_RANK, _MAX_ELEMENTS, _LONGEST = 16, 1 << 50, 200


@lru_cache(maxsize=4096)
def dtype_of(text: str) -> str | None:
    """The type that a string of TensorRT names, by numpy's or torch's name, or None."""
    found = None if text.startswith("N/A") else _WORD.search(text)
    return None if found is None else TYPE_WORDS[found.group().lower()]


def tensors_of(layer: dict[str, Any], key: str, omitted: Omissions) -> tuple[TensorInfo, ...]:
    """`Inputs` or `Outputs` of a layer."""
    raw = layer.get(key) or []
    if not isinstance(raw, list):
        omitted.add(f"{key} that is not a list", layer.get("Name"))
        return ()
    found = [tensor_of(item, omitted, layer.get("Name")) for item in raw]
    return tuple(t for t in found if t is not None)


def tensor_of(raw: Any, omitted: Omissions, where: object) -> TensorInfo | None:
    """One tensor; the suffix of an optimization profile is not part of its name."""
    if isinstance(raw, str):
        return TensorInfo.model_construct(name=PROFILE.sub("", raw))
    name = raw.get("Name") if isinstance(raw, dict) else None
    if not isinstance(name, str):
        omitted.add("a tensor without a Name", where)
        return None
    if "[profile " in name:
        name = PROFILE.sub("", name)
    dtype, layout = _type(raw)
    shape = dims_of(raw.get("Dimensions"), omitted, where)
    return TensorInfo.model_construct(name=name, shape=shape, dtype=dtype, format=layout)


def _type(raw: dict[str, Any]) -> tuple[str | None, str | None]:
    """Type and layout; a string that only names a type is no layout."""
    text = raw.get("Format/Datatype", raw.get("Format"))
    layout = text.rstrip(". ") if isinstance(text, str) else ""
    split = raw.get("Datatype", raw.get("DataType"))
    dtype = dtype_of((split if isinstance(split, str) else layout)[:_LONGEST])
    if layout.lower() in TYPE_WORDS or not layout:
        order = raw.get("StrideOrder", raw.get("Strides"))
        layout = f"strides {order}"[:200] if isinstance(order, list) else ""
    return dtype, layout or None


def dims_of(raw: Any, omitted: Omissions, where: object) -> tuple[int | None, ...] | None:
    """Sizes; a negative one is not known before the engine runs, and is None."""
    if type(raw) is list and all(type(d) is int for d in raw):
        dims = tuple(None if d < 0 else d for d in raw) if raw and min(raw) < 0 else tuple(raw)
        if len(dims) <= _MAX_RANK and prod(d or 1 for d in dims) < _MAX_ELEMENTS:
            return dims
    if raw is not None:
        omitted.add("Dimensions that are no sizes", where)
    return None
