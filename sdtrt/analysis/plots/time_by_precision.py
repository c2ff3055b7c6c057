"""Stacked bars, one per engine: how its layer time divides among the types that layers compute in."""

import plotly.graph_objects as go

from sdtrt.analysis.colors import precision_color
from sdtrt.analysis.plot_support.shares import share_bars
from sdtrt.analysis.session import Analysis

TITLE = "Layer time by precision"
CAPTION = "Each bar is one engine, 100 % the sum of its layer times. The type is that in which a layer computes."
SECTION, ORDER, SCOPE = "Time", 3, "all"


def draw(analysis: Analysis) -> go.Figure:
    """One bar per engine with times, one color per type."""
    frame = analysis.frame.assign(precision=analysis.frame["precision"].fillna("unknown"))
    names = frame.groupby("precision")["time_ms"].sum().sort_values(ascending=False).index
    return share_bars(frame, "precision", {name: precision_color(name) for name in names})
