"""Stacked bars, one per kind of layer: the types in which it computes."""

from __future__ import annotations

import plotly.graph_objects as go

from sdtrt.analysis.colors import precision_color
from sdtrt.analysis.plot_support.layout import NOT_TIMED, by_kind, finish, label, name_bars
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
    sums = timed.groupby(["precision", "kind"])["time_ms"].sum().unstack(fill_value=0)
    kinds = sorted((kind for kind, _, _ in by_kind(timed)), key=lambda kind: -sums[kind].sum())
    figure = go.Figure()
    for precision in sums.sum(axis=1).sort_values(ascending=False).index:
        figure.add_bar(
            name=label(precision, 24),
            y=list(range(len(kinds))),
            x=sums.loc[precision, kinds].tolist(),
            marker={"color": precision_color(precision)},
            hovertemplate=f"{label(precision, 40)}: %{{x:.4g}} ms<extra></extra>",
        )
    name_bars(figure, kinds, "layer time, ms")
    figure.update_layout(barmode="stack", showlegend=True)
    return finish(figure, 110 + 38 * len(kinds), "" if kinds else NOT_TIMED)
