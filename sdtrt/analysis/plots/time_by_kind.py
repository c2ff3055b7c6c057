"""Stacked bars, one per engine: how its layer time divides among the kinds of layers."""

import plotly.graph_objects as go

from sdtrt.analysis.colors import KIND_COLORS
from sdtrt.analysis.plot_support.shares import share_bars
from sdtrt.analysis.session import Analysis

TITLE = "Layer time by kind"
CAPTION = "Each bar is one engine, 100 % the sum of its layer times. Click a kind in the legend to leave it out."
SECTION, ORDER, SCOPE = "Time", 2, "all"


def draw(analysis: Analysis) -> go.Figure:
    """One bar per engine with times, one color per kind."""
    return share_bars(analysis.frame, "kind", KIND_COLORS)
