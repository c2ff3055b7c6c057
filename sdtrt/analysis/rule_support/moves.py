"""What layers that compute nothing do. Each has one sort, so that no two rules report the same one.

- quantize: rounds to 8 or 4 bits, or back, on its own
- shape: computes sizes, or only renames
- skip, copy: joins or cuts tensors; "skip" joins a skip connection of a U-Net's up blocks
- norm_cast, cast: changes the type, next to a normalization or elsewhere
- layout: changes the order of elements
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Literal

from sdtrt.analysis.device_peaks import MATRIX_KINDS
from sdtrt.analysis.rule_support.view import Part, View
from sdtrt.plan.layers import DTYPE_BITS, Layer

Sort = Literal["quantize", "shape", "skip", "copy", "norm_cast", "cast", "layout"]
_QDQ = frozenset({"QuantizeLinear", "DequantizeLinear"})
_CUTS = frozenset({"Concat", "Concatenation", "Slice", "Split", "Pad", "Padding"})
_CUT_TOKENS = re.compile(r"__myl_\w*(Slic|Conc|Pad)")
_INTEGERS = frozenset({"int32", "int64"})
_NORM = re.compile(r"norm[^.]*$")


def moves(view: View, *sorts: Sort) -> Iterator[Part]:
    """Layers of these sorts that take time."""
    return (part for part in view.parts if part.runs and sort_of(view, part) in sorts)


def sort_of(view: View, part: Part) -> Sort | None:
    """The sort of a layer; None for one that computes."""
    layer = part.layer
    if layer.op == "NoOp" and not part.time_ms:
        return None
    if is_quantize(part):
        return "quantize"
    if layer.kind == "shape" or is_shape_arithmetic(layer):
        return "shape"
    if _cuts(part):
        joins = layer.name.endswith(" copy") or "Conc" in f"{layer.kernel} {' '.join(part.ops)}"
        return "skip" if joins and "up_blocks" in (layer.module or layer.name) else "copy"
    if layer.kind != "reformat" and not (layer.kind == "copy" and "Transpose" in part.ops):
        return None
    before, after = part.dtypes
    if before == after or None in (before, after):
        return "cast" if layer.op == "Cast" else "layout"
    return "norm_cast" if _meets_norm(view, part) else "cast"


def _cuts(part: Part) -> bool:
    """Whether the layer slices, pads or joins, by its nodes or by the operators that Myelin names its kernel after."""
    layer = part.layer
    # A node that moves nothing computes a size.
    ops = {layer.op} | {node.op for node, _ in part.paid if node.bytes_moved != 0}
    unknown = {node.name for node, _ in part.paid} == {layer.name}
    if layer.kind == "copy" and (ops & _CUTS or (unknown and _CUT_TOKENS.search(layer.kernel or ""))):
        return True
    # TensorRT fills a concatenation that it could not write in place with a Reformat layer called "<tensor> copy".
    return layer.kind in {"copy", "reformat"} and layer.name.endswith(" copy")


def is_quantize(part: Part) -> bool:
    """Whether the layer does nothing but quantize or dequantize: a Scale or Reformat layer, or such a node alone."""
    layer = part.layer
    if layer.kind in MATRIX_KINDS:
        return False
    only_rounds = bool(part.ops & _QDQ) and part.ops <= _QDQ | {layer.op}
    if only_rounds or layer.attributes.get("Origin") == "QDQ":
        return True
    return layer.op in {"Scale", "Reformat"} and is_low(part.dtypes[0]) != is_low(part.dtypes[1])


def is_requantize(view: View, part: Part) -> bool:
    """Whether the layer rounds what a quantized product has written as floating point."""
    feeding = list(view.feeds(part))
    # What only copies passes the type on; a chain of these is short.
    for _ in range(3):
        feeding += [p for maker in feeding if maker.layer.kind in {"reformat", "shape"} for p in view.feeds(maker)]
    makers = [p for p in feeding if p.layer.kind in MATRIX_KINDS and is_low(p.layer.precision)]
    return is_low(part.dtypes[1]) and any(not is_low(maker.dtypes[1]) for maker in makers)


def is_low(dtype: str | None) -> bool:
    """Whether it is a type that activations are quantized to."""
    return DTYPE_BITS.get(dtype or "", 99) <= 8 and dtype not in {"bool", "uint8"}


def is_shape_arithmetic(layer: Layer) -> bool:
    """Whether every output is a few integers, as in computing the sizes of a reshape; TensorRT calls it shape_call."""
    if layer.op == "shape_call":
        return True
    few = [t.dtype in _INTEGERS and t.shape is not None and len(t.shape) <= 1 for t in layer.outputs]
    return layer.kind in {"copy", "pointwise", "reformat"} and bool(few) and all(few)


def _meets_norm(view: View, part: Part) -> bool:
    near = (*view.feeds(part), *view.fed(part))
    if any(other.layer.kind == "norm" or _NORM.search(other.layer.module or "") for other in near):
        return True
    return bool(_NORM.search(part.layer.module or ""))
