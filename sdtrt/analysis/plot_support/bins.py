"""Logarithmic bins for histograms, and an axis that is labeled at their edges."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import plotly.graph_objects as go

PER_DECADE = 4


@dataclass(frozen=True)
class Bins:
    """Bins of a quarter of a decade: number `first` begins at 10 ** (first / 4)."""

    first: int
    count: int

    @classmethod
    def over(cls, values: np.ndarray) -> Bins:
        """As many as cover `values`, which are above 0."""
        places = _places(values)
        return cls(int(places.min()), int(places.max() - places.min()) + 1)

    def bars(self, values: np.ndarray, unit: str, weights: np.ndarray | None = None) -> dict[str, list[Any]]:
        """Places, heights and spans of the bars: how many values lie in each bin, or what their weights add up to."""
        heights = np.bincount(_places(values) - self.first, weights, minlength=self.count)
        edges = 10 ** ((self.first + np.arange(self.count + 1)) / PER_DECADE)
        spans = [f"{low:.3g} to {high:.3g} {unit}" for low, high in pairwise(edges)]
        return {"x": list(range(self.count)), "y": heights.tolist(), "customdata": spans}

    def label(self, figure: go.Figure, title: str) -> None:
        """Put bar i at i, with whole decades written at the edges between bars."""
        decades = range(-(-self.first // PER_DECADE), (self.first + self.count) // PER_DECADE + 1)
        places = [decade * PER_DECADE - self.first - 0.5 for decade in decades]
        texts = [np.format_float_positional(10.0**decade, trim="-") for decade in decades]
        figure.update_xaxes(
            title=title, fixedrange=True, range=[-0.6, self.count - 0.4], tickvals=places, ticktext=texts
        )
        figure.update_layout(bargap=0.08)


def _places(values: np.ndarray) -> np.ndarray:
    places: np.ndarray = np.floor(np.log10(values) * PER_DECADE + 1e-9).astype(int)
    return places
