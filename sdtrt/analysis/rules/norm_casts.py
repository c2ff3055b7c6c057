"""Casts around normalizations.

What it finds: layers that only change the type of a tensor and stand next to a group or layer norm.

Why it costs: exports of half-precision models compute norms in float32 between two casts. Where the engine does not
fuse them, the tensor is read and written whole twice more. Cost: the measured time of the casts.

What to do: export the norm as one operator (GroupNormalization, LayerNormalization) on half-precision tensors: its
kernels sum in float32 inside. A norm that must stay in float32 should at least be one fused region with its casts.
"""

from __future__ import annotations

from collections.abc import Iterator

from sdtrt.analysis.rule_support.moves import moves
from sdtrt.analysis.rule_support.view import Found, View, counted, names, total

TITLE = "Casts around normalizations"


def find(view: View) -> Iterator[Found]:
    """All of them as one finding."""
    found = list(moves(view, "norm_cast"))
    if found:
        cost = total(part.time_ms for part in found)
        yield Found(f"{counted(len(found), 'cast')} next to a normalization{view.pct(cost)}", names(found), cost)
