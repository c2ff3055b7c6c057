"""Tensors that are cut or joined by copying.

What it finds: layers that only slice, split, pad or concatenate, and the copies that TensorRT makes for a
concatenation. Skip connections of a U-Net are another finding.

Why it costs: the bytes are read and written once more, although a kernel could read a part of a tensor, or write into
one, in place. Cost: the measured time.

What to do: split the weights of a projection in the export instead of its output, and pad in the convolution itself.
Inputs of a concatenation should have one type and layout and one user each; then it needs no copy.
"""

from __future__ import annotations

from collections.abc import Iterator

from sdtrt.analysis.rule_support.moving_layers import moving_layers, report_time
from sdtrt.analysis.rule_support.view import Diagnostic, View, pluralize

TITLE = "Slice and concat copies"


def find(view: View) -> Iterator[Diagnostic]:
    """All of them as one finding."""
    found = moving_layers(view, "copy")
    yield from report_time(view, found, f"{pluralize(found, 'layer')} to cut or join tensors")
