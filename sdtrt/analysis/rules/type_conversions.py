"""Casts between layers and at the engine's borders.

What it finds: layers that only change the type of a tensor. Casts around normalizations, and quantizing, are other
findings.

Why it costs: a cast reads and writes the whole tensor and computes nothing. Cost: the measured time.

What to do: at the borders, give and take tensors of the engine's own type. Inside, find the layer that runs in another
precision than its neighbors and bring it in line, or cast where the tensor is smallest.
"""

from __future__ import annotations

from collections.abc import Iterator

from sdtrt.analysis.rule_support.moving_layers import moving_layers, report_time
from sdtrt.analysis.rule_support.view import Diagnostic, View, pluralize

TITLE = "Type conversions"


def find(view: View) -> Iterator[Diagnostic]:
    """All of them as one finding."""
    found = moving_layers(view, "cast")
    border = [entry for entry in found if not any(view.writers_of(entry)) or not any(view.readers_of(entry))]
    where = f", {len(border)} at the engine's inputs and outputs" if border else ""
    yield from report_time(view, found, f"{pluralize(found, 'cast')}{where}")
