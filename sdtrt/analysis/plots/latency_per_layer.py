"""Bars: the time of every layer, in the order in which the engine lists them."""

from __future__ import annotations

import plotly.graph_objects as go

from sdtrt.analysis.plot_support.layout import LAYERS, NOT_TIMED, by_kind, finish, layer_axis, names_of
from sdtrt.analysis.session import Analysis

TITLE = "Latency per layer"
CAPTION = "Every layer in the engine's order. Drag to zoom, double-click to see all, click a bar for its details."
SECTION, ORDER, WIDE = "Time", 4, True


def draw(analysis: Analysis) -> go.Figure:
    """One bar per timed layer, colored by kind."""
    timed = analysis.frame.dropna(subset=["time_ms"])
    figure = go.Figure()
    for kind, color, rows in by_kind(timed):
        figure.add_bar(
            name=kind,
            meta=LAYERS,
            x=[int(i) + 1 for i in rows.index],
            y=rows["time_ms"].tolist(),
            width=1,
            marker={"color": color, "line": {"width": 0}},
            customdata=names_of(rows),
            hovertemplate="%{customdata[1]}<br>%{y:.4g} ms<extra></extra>",
        )
    figure.update_layout(barmode="overlay", bargap=0, dragmode="zoom")
    layer_axis(figure, analysis.frame)
    figure.update_yaxes(title="time of one run, ms", fixedrange=True)
    return finish(figure, 380, "" if len(timed) else NOT_TIMED)
