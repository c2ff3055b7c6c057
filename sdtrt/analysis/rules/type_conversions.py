"""Casts between layers and at the engine's borders.

What it finds: layers that only change the type of a tensor. Casts around normalizations, and quantizing, are other
findings.

Why it costs: a cast reads and writes the whole tensor and computes nothing. Cost: the measured time.

What to do: at the borders, give and take tensors of the engine's own type. Inside, find the layer that runs in another
precision than its neighbors and bring it in line, or cast where the tensor is smallest.
"""

from __future__ import annotations

from collections.abc import Iterator

from sdtrt.analysis.rule_support.moves import moves
from sdtrt.analysis.rule_support.view import Found, View, counted, names, total

TITLE = "Type conversions"


def find(view: View) -> Iterator[Found]:
    """All of them as one finding."""
    found = list(moves(view, "cast"))
    if found:
        cost = total(part.time_ms for part in found)
        border = [part for part in found if not any(view.feeds(part)) or not any(view.fed(part))]
        where = f", {len(border)} at the engine's inputs and outputs" if border else ""
        yield Found(f"{counted(len(found), 'cast')}{where}{view.pct(cost)}", names(found), cost)
