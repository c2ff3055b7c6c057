"""Quantized layers that write floating point, only for it to be quantized again.

What it finds: layers that do nothing but quantize what a convolution or matrix product in int8, float8 or int4 has
written as floating point.

Why it costs: the product could have rounded its own output and moved a half to an eighth of the bytes. Cost: the
measured time of the layers that quantize.

What to do: place the Q/DQ pair so that it follows the product, its activation and its residual sum directly, and
quantize both branches of a residual with one scale: then the rounding is fused into the kernel.
"""

from __future__ import annotations

from collections.abc import Iterator

from sdtrt.analysis.rule_support.moves import is_requantize, moves
from sdtrt.analysis.rule_support.view import Found, View, counted, names, total

TITLE = "Quantized layers with floating-point outputs that are quantized again"


def find(view: View) -> Iterator[Found]:
    """All of them as one finding."""
    found = [part for part in moves(view, "quantize") if is_requantize(view, part)]
    if found:
        cost = total(part.time_ms for part in found)
        text = f"{counted(len(found), 'layer')} to quantize again what a quantized layer wrote as floating point"
        yield Found(text + view.pct(cost), names(found), cost)
