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

from sdtrt.analysis.rule_support.moving_layers import is_requantize, moving_layers, report_time
from sdtrt.analysis.rule_support.view import Diagnostic, View, pluralize

TITLE = "Quantized layers with floating-point outputs that are quantized again"


def find(view: View) -> Iterator[Diagnostic]:
    """All of them as one finding."""
    found = [entry for entry in moving_layers(view, "quantize") if is_requantize(view, entry)]
    text = f"{pluralize(found, 'layer')} to quantize again what a quantized layer wrote as floating point"
    yield from report_time(view, found, text)
