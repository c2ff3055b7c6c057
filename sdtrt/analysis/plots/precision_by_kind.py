"""Stacked bars, one per kind of layer: the types in which it computes."""

import plotly.graph_objects as go

from sdtrt.analysis.colors import precision_color
from sdtrt.analysis.plot_support.layout import NOT_TIMED, by_kind, stack_bars
from sdtrt.analysis.session import Analysis

TITLE = "Precision by kind"
CAPTION = (
    "Layer time of each kind, divided by the type in which it computes: a wide type in a narrow engine stands out."
)
SECTION, ORDER = "Precision", 2


def draw(analysis: Analysis) -> go.Figure:
    """One bar per kind, the slowest first, and one color per type."""
    timed = analysis.frame.dropna(subset=["time_ms"])
    timed = timed.assign(precision=timed["precision"].fillna("unknown"))
    sums = timed.groupby(["kind", "precision"])["time_ms"].sum().unstack(fill_value=0)
    kinds = sorted((kind for kind, _, _ in by_kind(timed)), key=lambda kind: -sums.loc[kind].sum())
    names = sums.sum().sort_values(ascending=False).index
    parts = [(name, name, precision_color(name)) for name in names]
    return stack_bars(sums.loc[kinds], parts, "%{x:.4g} ms", "layer time, ms", NOT_TIMED)
