"""Softmax that runs as a layer of its own.

What it finds: layers whose operator is a softmax, where the engine has no fused attention around it.

Why it costs: the scores are written to memory and read again twice. Cost: the measured time of these layers.

What to do: keep the attention in one piece: the graph pass fuse_attention for ONNX Runtime, or a newer TensorRT.
"""

from __future__ import annotations

from collections.abc import Iterator

from sdtrt.analysis.rule_support.view import Diagnostic, View, pluralize
from sdtrt.plan.sums import sum_known

TITLE = "Softmax on its own"


def find(view: View) -> Iterator[Diagnostic]:
    """All of them as one finding."""
    lone = [part for part in view.layers if part.layer.op.lower() == "softmax"]
    if lone:
        text = f"{pluralize(lone, 'softmax layer')} outside a fused attention"
        yield Diagnostic(text, tuple(part.layer.name for part in lone), sum_known(part.time_ms for part in lone))
