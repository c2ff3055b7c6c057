"""Convolutions on plain arithmetic.

What it finds: convolutions whose kernel name says that it multiplies without tensor cores (ffma, scudnn, sgemm, kernels
for GPUs older than Volta), where the device has such units for the layer's type. Depthwise convolutions, and those
that wait for memory anyway, are left out.

Why it costs: tensor cores multiply 8 to 16 times as fast. Cost: the measured time less that of a perfect kernel on
them; unknown without FLOPs or the device's peak rates.

What to do: check why TensorRT chose it. Few input channels: pad them to a multiple of 8. An odd layout at the engine's
inputs: give channels last. Otherwise raise the builder's optimization level and workspace, and build in float16.
"""

from __future__ import annotations

from collections.abc import Iterator

from sdtrt.analysis.rule_support.kernels import without_tensor_cores
from sdtrt.analysis.rule_support.view import Found, View, counted, names, short, total

TITLE = "Convolutions without tensor cores"


def find(view: View) -> Iterator[Found]:
    """All of them as one finding."""
    found = list(without_tensor_cores(view, lambda part: part.layer.kind == "conv"))
    if found:
        cost, number = total(part.headroom_ms for part in found), counted(len(found), "convolution")
        text = f"{number} on plain arithmetic{view.pct(cost)}, {short(names(found)[0])} the longest"
        yield Found(text, names(found), cost)
