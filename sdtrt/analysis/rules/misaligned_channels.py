"""Channels that tensor cores must pad.

What it finds: convolutions and matrix products whose input or output channels are no multiple of 16 bytes: 8 channels
of float16 and bfloat16, 16 of int8 and float8, 4 of float32 as TF32; or of what the layout pads to where its name says
so. Less than a twentieth of padding, grouped convolutions, and kernels that do not use tensor cores are left out.

Why it costs: such units read 16 bytes at a time, and the kernel multiplies the padding too. Cost: the padding's share
of the padded product, taken of the measured time; never more than a perfect kernel would save.

What to do: choose widths that are multiples of 8 or 16 when the model is made. For latents and pictures, of 4 and 3
channels, it cannot be helped and costs little.
"""

import re
from collections.abc import Iterator

from sdtrt.analysis.rule_support.kernels import uses_tensor_cores
from sdtrt.analysis.rule_support.view import Diagnostic, LayerView, View, names_by_time, pluralize, shorten
from sdtrt.plan.layers import DTYPE_BITS
from sdtrt.plan.sums import sum_known

TITLE = "Channels not aligned for tensor cores"
UNIT_BITS = 128
LEAST_PADDING = 0.05
# TensorRT: "Channel major FP16 format where channel % 4 == 0".
_UNIT = re.compile(r"channel % (\d+) == 0")


def find(view: View) -> Iterator[Diagnostic]:
    """All of them as one finding."""
    found = [entry for entry in view.layers if _padding(entry) >= LEAST_PADDING]
    if view.on_gpu and found:
        cost, first = sum_known(map(_cost, found)), max(found, key=lambda entry: entry.time_ms or 0)
        sizes = " to ".join(map(str, _channels(first) or ()))
        text = f"{pluralize(found, 'product')} with padded channels{view.percent(cost)}"
        text += f", {shorten(first.layer.name)} the longest: {sizes}"
        yield Diagnostic(text, names_by_time(found), cost)


def _padding(entry: LayerView) -> float:
    """Share of the padded product that is padding; 0 where nothing is known to be padded."""
    bits, sizes = DTYPE_BITS.get(entry.layer.precision or ""), _channels(entry)
    if bits is None or bits > 32 or sizes is None or not entry.runs or uses_tensor_cores(entry.layer.kernel) is False:
        return 0
    layouts = (side[0].format or "" for side in (entry.layer.inputs, entry.layer.outputs))
    named = (_UNIT.search(layout) for layout in layouts)
    units = (max(int(found[1]), 1) if found else UNIT_BITS // bits for found in named)
    read, written = (size / (-(-size // unit) * unit) for size, unit in zip(sizes, units, strict=True))
    return 1 - read * written


def _channels(entry: LayerView) -> tuple[int, int] | None:
    layer = entry.layer
    if layer.kind not in {"conv", "gemm"} or layer.attributes.get("Groups", 1) != 1:
        return None
    shapes = [side[0].shape or () for side in (layer.inputs, layer.outputs) if side]
    axis, rank = (1, 3) if layer.kind == "conv" else (-1, 2)
    if len(shapes) < 2 or any(len(shape) < rank for shape in shapes):
        return None
    read, written = (shape[axis] for shape in shapes)
    return (read, written) if read and written else None


def _cost(entry: LayerView) -> float | None:
    if entry.time_ms is None:
        return None
    wasted = entry.time_ms * _padding(entry)
    return wasted if entry.headroom_ms is None else min(wasted, entry.headroom_ms)
