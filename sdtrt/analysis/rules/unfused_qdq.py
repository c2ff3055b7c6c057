"""Quantizing and dequantizing as layers of their own.

What it finds: layers that only quantize or dequantize int8, float8 or int4, in both forms that TensorRT gives them,
Scale and Reformat. Those after a quantized layer are another finding.

Why it costs: the layer reads and writes a whole tensor to round it. Fused into its neighbor that is free. Cost: the
measured time.

What to do: move Q and DQ nodes next to convolutions and matrix products, do not quantize what is alone between
floating-point layers, and keep one scale along a chain of layers that only move data.
"""

from __future__ import annotations

from collections.abc import Iterator

from sdtrt.analysis.rule_support.moving_layers import is_requantize, moving_layers, report_time
from sdtrt.analysis.rule_support.view import Diagnostic, View, pluralize

TITLE = "Q/DQ layers that were not fused"


def find(view: View) -> Iterator[Diagnostic]:
    """All of them as one finding."""
    found = [entry for entry in moving_layers(view, "quantize") if not is_requantize(view, entry)]
    yield from report_time(view, found, f"{pluralize(found, 'Q/DQ layer')} on their own")
