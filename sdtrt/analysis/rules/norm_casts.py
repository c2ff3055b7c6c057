"""Casts around normalizations.

What it finds: layers that only change the type of a tensor and stand next to a group or layer norm.

Why it costs: exports of half-precision models compute norms in float32 between two casts. Where the engine does not
fuse them, the tensor is read and written whole twice more. Cost: the measured time of the casts.

What to do: export the norm as one operator (GroupNormalization, LayerNormalization) on half-precision tensors: its
kernels sum in float32 inside. A norm that must stay in float32 should at least be one fused region with its casts.
"""

from __future__ import annotations

from collections.abc import Iterator

from sdtrt.analysis.rule_support.moving_layers import moving_layers, report_time
from sdtrt.analysis.rule_support.view import Diagnostic, View, pluralize

TITLE = "Casts around normalizations"


def find(view: View) -> Iterator[Diagnostic]:
    """All of them as one finding."""
    found = moving_layers(view, "norm_cast")
    yield from report_time(view, found, f"{pluralize(found, 'cast')} next to a normalization")
