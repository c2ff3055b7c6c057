"""Stacked bars: the bytes of weights and of activations that every layer reads and writes."""

from __future__ import annotations

import plotly.graph_objects as go

from sdtrt.analysis.plot_support.layout import FOOTPRINT_PARTS, LAYERS, finish, layer_axis, names_of
from sdtrt.analysis.session import Analysis

TITLE = "Footprint per layer"
CAPTION = "Every layer in the engine's order: its weights, and its inputs and outputs. Drag to zoom, click for details."
SECTION, ORDER, WIDE = "Memory", 1, True


def draw(analysis: Analysis) -> go.Figure:
    """One bar per layer, of weights and activations."""
    frame = analysis.frame
    figure = go.Figure()
    for name, column, color in FOOTPRINT_PARTS:
        rows = frame[frame[column] > 0]
        if len(rows):
            figure.add_bar(
                name=name,
                meta=LAYERS,
                x=[int(i) + 1 for i in rows.index],
                y=(rows[column] / 1e6).tolist(),
                width=1,
                marker={"color": color, "line": {"width": 0}},
                customdata=names_of(rows),
                hovertemplate=f"%{{customdata[1]}}<br>{name}: %{{y:,.4g}} MB<extra></extra>",
            )
    figure.update_layout(barmode="stack", bargap=0, dragmode="zoom")
    layer_axis(figure, analysis.frame)
    figure.update_yaxes(title="footprint, MB", fixedrange=True)
    return finish(figure, 380, "" if figure.data else "The size of no layer is known.")
