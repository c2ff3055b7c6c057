"""Bars: the time of every layer, in the order in which the engine lists them."""

import plotly.graph_objects as go

from sdtrt.analysis.plot_support.layout import NOT_TIMED, by_kind, finish, layer_bars
from sdtrt.analysis.session import Analysis

TITLE = "Latency per layer"
CAPTION = "Every layer in the engine's order. Drag to zoom, double-click to see all, click a bar for its details."
SECTION, ORDER, WIDE = "Time", 4, True


def draw(analysis: Analysis) -> go.Figure:
    """One bar per timed layer, colored by kind."""
    timed = analysis.frame.dropna(subset=["time_ms"])
    parts = ((kind, color, rows["time_ms"], "%{y:.4g} ms") for kind, color, rows in by_kind(timed))
    figure = layer_bars(analysis.frame, parts, "time of one run, ms")
    return finish(figure, 380, "" if len(timed) else NOT_TIMED)
