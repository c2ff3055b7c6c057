"""Layers that move or convert data and compute nothing. Each has one kind, so that no two rules report the same layer.

- quantize: rounds to 8 or 4 bits, or back, on its own
- shape: computes sizes, or only renames
- skip, copy: joins or cuts tensors; "skip" joins a skip connection of a U-Net's up blocks
- norm_cast, cast: changes the type, next to a normalization or elsewhere
- layout: changes the order of elements
"""

import re
from collections.abc import Iterator, Sequence
from typing import Literal

from sdtrt.analysis.device_peaks import MATRIX_KINDS
from sdtrt.analysis.rule_support.view import Diagnostic, LayerView, View, names_by_time, time_of
from sdtrt.plan.layers import DTYPE_BITS, Layer

MoveKind = Literal["quantize", "shape", "skip", "copy", "norm_cast", "cast", "layout"]
_QDQ = frozenset({"QuantizeLinear", "DequantizeLinear"})
_JOINS_AND_SLICES = frozenset({"Concat", "Concatenation", "Slice", "Split", "Pad", "Padding"})
_KERNEL_TOKENS = re.compile(r"__myl_\w*(Slic|Conc|Pad)")
_INTEGERS = frozenset({"int32", "int64"})
_NORM = re.compile(r"norm[^.]*$")


def moving_layers(view: View, kind: MoveKind) -> list[LayerView]:
    """Layers of this kind that take time."""
    return [entry for entry in view.layers if entry.runs and move_kind(view, entry) == kind]


def report_time(view: View, layers: Sequence[LayerView], text: str) -> Iterator[Diagnostic]:
    """One finding for all of `layers`, which cost all the time that they take; none without layers."""
    if layers:
        cost_ms = time_of(layers)
        yield Diagnostic(f"{text}{view.percent(cost_ms)}", names_by_time(layers), cost_ms)


def move_kind(view: View, entry: LayerView) -> MoveKind | None:
    """How a layer moves data; None for one that computes."""
    layer = entry.layer
    if layer.op == "NoOp" and not entry.time_ms:
        return None
    if is_quantize(entry):
        return "quantize"
    if layer.kind == "shape" or is_shape_arithmetic(layer):
        return "shape"
    if _joins_or_slices(entry):
        joins = layer.name.endswith(" copy") or "Conc" in f"{layer.kernel} {' '.join(entry.ops)}"
        return "skip" if joins and "up_blocks" in (layer.module or layer.name) else "copy"
    if layer.kind != "reformat" and not (layer.kind == "copy" and "Transpose" in entry.ops):
        return None
    before, after = entry.dtypes
    if before == after or None in (before, after):
        return "cast" if layer.op == "Cast" else "layout"
    return "norm_cast" if _is_next_to_norm(view, entry) else "cast"


def _joins_or_slices(entry: LayerView) -> bool:
    """Whether the layer slices, pads or joins, by its nodes or by the operators that Myelin names its kernel after."""
    layer = entry.layer
    # A node that moves nothing computes a size.
    ops = {layer.op} | {node.op for node, _ in entry.node_shares if node.bytes_moved != 0}
    unknown = {node.name for node, _ in entry.node_shares} == {layer.name}
    if layer.kind == "copy" and (ops & _JOINS_AND_SLICES or (unknown and _KERNEL_TOKENS.search(layer.kernel or ""))):
        return True
    # TensorRT fills a concatenation that it could not write in place with a Reformat layer called "<tensor> copy".
    return layer.kind in {"copy", "reformat"} and layer.name.endswith(" copy")


def is_quantize(entry: LayerView) -> bool:
    """Whether the layer does nothing but quantize or dequantize: a Scale or Reformat layer, or such a node alone."""
    layer = entry.layer
    if layer.kind in MATRIX_KINDS:
        return False
    only_rounds = bool(entry.ops & _QDQ) and entry.ops <= _QDQ | {layer.op}
    if only_rounds or layer.attributes.get("Origin") == "QDQ":
        return True
    read, written = map(is_quantized_dtype, entry.dtypes)
    return layer.op in {"Scale", "Reformat"} and read != written


def is_requantize(view: View, entry: LayerView) -> bool:
    """Whether the layer quantizes what a quantized convolution or matmul has written as floating point."""
    sources = list(view.writers_of(entry))
    # A copy keeps the type of what it reads; a chain of copies is short.
    for _ in range(3):
        copies = [source for source in sources if source.layer.kind in {"reformat", "shape"}]
        sources += [writer for copy in copies for writer in view.writers_of(copy)]
    matmuls = [s for s in sources if s.layer.kind in MATRIX_KINDS and is_quantized_dtype(s.layer.precision)]
    return is_quantized_dtype(entry.dtypes[1]) and any(not is_quantized_dtype(s.dtypes[1]) for s in matmuls)


def is_quantized_dtype(dtype: str | None) -> bool:
    """Whether it is a type that activations are quantized to."""
    return DTYPE_BITS.get(dtype or "", 99) <= 8 and dtype not in {"bool", "uint8"}


def is_shape_arithmetic(layer: Layer) -> bool:
    """Whether every output is a few integers, as in computing the sizes of a reshape; TensorRT calls it shape_call."""
    if layer.op == "shape_call":
        return True
    few = [t.dtype in _INTEGERS and t.shape is not None and len(t.shape) <= 1 for t in layer.outputs]
    return layer.kind in {"copy", "pointwise", "reformat"} and bool(few) and all(few)


def _is_next_to_norm(view: View, entry: LayerView) -> bool:
    near = (*view.writers_of(entry), *view.readers_of(entry))
    if any(other.layer.kind == "norm" or _NORM.search(other.layer.module or "") for other in near):
        return True
    return bool(_NORM.search(entry.layer.module or ""))
