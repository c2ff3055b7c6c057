"""Layers that only change the layout.

What it finds: Reformat layers, transposes and reorders that keep the type: channels first to channels last and back,
channel blocks of another width.

Why it costs: the tensor is read and written whole, and nothing is computed. Cost: the measured time.

What to do: they stand where neighbors want different layouts. Use channels last at the engine's borders, and look at
the layer on each side: often one operator without a channels-last kernel (a plugin, an odd resize) pays twice. Write
attention so that heads are split without a transpose in memory.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from sdtrt.analysis.rule_support.moves import moves
from sdtrt.analysis.rule_support.view import Found, Part, View, counted, names, total

TITLE = "Layout changes"


def find(view: View) -> Iterator[Found]:
    """All of them as one finding."""
    found = list(moves(view, "layout"))
    if found:
        cost = total(part.time_ms for part in found)
        commonest = Counter(filter(None, map(_change, found))).most_common(1)
        what = f", mostly {commonest[0][0]}" if commonest else ""
        yield Found(f"{counted(len(found), 'layout change')}{what}{view.pct(cost)}", names(found), cost)


def _change(part: Part) -> str | None:
    """Both formats, where the backend names them."""
    before, after = (side[0].format if side else None for side in (part.layer.inputs, part.layer.outputs))
    return f'from "{before}" to "{after}"' if before and after and before != after else None
