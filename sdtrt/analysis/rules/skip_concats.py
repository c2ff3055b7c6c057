"""Skip connections of a U-Net that are copied together.

What it finds: concatenations in the up blocks that run as layers of their own.

Why it costs: at each step both halves, some of the largest tensors of the model, are read and written only to lie
side by side. Cost: the measured time.

What to do: the norm and the convolution that follow can read two tensors: fuse the concatenation into them with a
plugin, or split the convolution's weights by input channels and add the two results. In TensorRT, first see that
both inputs have the same type and layout: then it is often written in place.
"""

from __future__ import annotations

from collections.abc import Iterator

from sdtrt.analysis.rule_support.moving_layers import moving_layers, report_time
from sdtrt.analysis.rule_support.view import Diagnostic, View
from sdtrt.plan.sums import sum_known

TITLE = "Copies of skip connections"


def find(view: View) -> Iterator[Diagnostic]:
    """All of them as one finding."""
    found = moving_layers(view, "skip")
    moved = sum_known(entry.layer.bytes_moved or entry.layer.io_bytes for entry in found)
    size = f", {moved / 1e6:,.4g} MB each run" if moved else ""
    number = "1 copy" if len(found) == 1 else f"{len(found):,} copies"
    yield from report_time(view, found, f"{number} to join skip connections{size}")
