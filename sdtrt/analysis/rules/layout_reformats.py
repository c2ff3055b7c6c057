"""Layers that only change the layout.

What it finds: Reformat layers, transposes and reorders that keep the type: channels first to channels last and back,
channel blocks of another width.

Why it costs: the tensor is read and written whole, and nothing is computed. Cost: the measured time.

What to do: they stand where neighbors have different layouts. Use channels last at the engine's borders, and look at
the layer on each side: often one operator without a channels-last kernel (a plugin, an odd resize) pays twice. Write
attention so that heads are split without a transpose in memory.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from sdtrt.analysis.rule_support.moving_layers import moving_layers, report_time
from sdtrt.analysis.rule_support.view import Diagnostic, LayerView, View, pluralize

TITLE = "Layout changes"


def find(view: View) -> Iterator[Diagnostic]:
    """All of them as one finding."""
    found = moving_layers(view, "layout")
    most_common = Counter(filter(None, map(_change, found))).most_common(1)
    what = f", mostly {most_common[0][0]}" if most_common else ""
    yield from report_time(view, found, f"{pluralize(found, 'layout change')}{what}")


def _change(entry: LayerView) -> str | None:
    """Both formats, where the backend names them."""
    before, after = (side[0].format if side else None for side in (entry.layer.inputs, entry.layer.outputs))
    return f'from "{before}" to "{after}"' if before and after and before != after else None
