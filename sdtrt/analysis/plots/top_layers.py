"""Bars: the layers that take the most time in one run of their engine."""

import plotly.graph_objects as go

from sdtrt.analysis.plot_support.layout import LAYERS, NOT_TIMED, by_kind, finish, label, name_bars
from sdtrt.analysis.session import Analysis

TITLE = "Slowest layers"
CAPTION = "The 12 layers with the longest median time. Point at a bar for its name and kernel, click for its details."
SECTION, ORDER = "Time", 5
TOP = 12


def draw(analysis: Analysis) -> go.Figure:
    """One bar per layer, longest first, with the layer's name above it."""
    top = analysis.frame.dropna(subset=["time_ms"]).nlargest(TOP, "time_ms")
    top = top.assign(layer=top.index, kernel=top["kernel"].fillna("unknown")).reset_index(drop=True)
    figure = go.Figure()
    for kind, color, rows in by_kind(top):
        names, kernels = (rows[column].map(lambda text: label(text, 90)) for column in ("name", "kernel"))
        figure.add_bar(
            name=kind,
            meta=LAYERS,
            y=rows.index.tolist(),
            x=rows["time_ms"].tolist(),
            marker={"color": color},
            customdata=list(zip(rows["layer"].tolist(), names, kernels, rows["pct_time"].tolist(), strict=True)),
            hovertemplate="%{customdata[1]}<br>%{x:.4g} ms, %{customdata[3]:.3g} %<br>kernel: %{customdata[2]}"
            "<extra></extra>",
        )
    figure.update_traces(texttemplate="%{x:.3g}", textposition="outside", cliponaxis=False)
    titles = [label(place, 44) for place in top["module"].fillna(top["name"])]
    if top["component"].nunique() > 1:
        titles = [f"{label(name, 14)}  {title}" for name, title in zip(top["component"], titles, strict=True)]
    name_bars(figure, titles, "time of one run, ms")
    figure.update_layout(xaxis_range=[0, 1.2 * max(top["time_ms"], default=0) or 1])
    return finish(figure, 110 + 38 * len(top), "" if titles else NOT_TIMED)
