"""Stacked bars: the bytes of weights and of activations that every layer reads and writes."""

import plotly.graph_objects as go

from sdtrt.analysis.plot_support.layout import FOOTPRINT_PARTS, finish, layer_bars
from sdtrt.analysis.session import Analysis

TITLE = "Footprint per layer"
CAPTION = "Every layer in the engine's order: its weights, and its inputs and outputs. Drag to zoom, click for details."
SECTION, ORDER, WIDE = "Memory", 1, True


def draw(analysis: Analysis) -> go.Figure:
    """One bar per layer, of weights and activations."""
    frame = analysis.frame
    sizes = ((name, color, frame[column][frame[column] > 0] / 1e6) for name, column, color in FOOTPRINT_PARTS)
    parts = [(name, color, size, f"{name}: %{{y:,.4g}} MB") for name, color, size in sizes if len(size)]
    figure = layer_bars(frame, parts, "footprint, MB")
    return finish(figure, 380, "" if parts else "The size of no layer is known.")
