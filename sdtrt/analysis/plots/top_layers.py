"""Bars: the layers that take the most time in one run of their engine."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import plotly.graph_objects as go

from sdtrt.analysis._colors import KIND_COLORS
from sdtrt.analysis.plots._layout import finish, label, name_bars
from sdtrt.plan import Plan

TITLE = "Slowest layers"
CAPTION = "The 20 layers with the longest median time, over all engines. Point at a bar for its full name and kernel."
TOP = 20


def draw(frame: pd.DataFrame, plans: Sequence[Plan]) -> go.Figure:
    """One bar per layer, longest first, with the layer's name above it."""
    top = frame.dropna(subset=["time_ms"]).nlargest(TOP, "time_ms").reset_index(drop=True)
    top["kernel"] = top["kernel"].fillna("unknown")
    figure = go.Figure()
    for kind, color in KIND_COLORS.items():
        rows = top[top["kind"] == kind]
        if len(rows):
            figure.add_bar(
                name=kind,
                y=rows.index.tolist(),
                x=rows["time_ms"].tolist(),
                marker={"color": color},
                customdata=rows[["name", "kernel"]].map(label, length=90).values.tolist(),
                hovertemplate="%{customdata[0]}<br>%{x:.4g} ms<br>kernel: %{customdata[1]}<extra></extra>",
            )
    figure.update_traces(texttemplate="%{x:.3g}", textposition="outside")
    names = [f"{label(row.component, 14)}  {label(row.module or row.name, 38)}" for row in top.itertuples(index=False)]
    name_bars(figure, names, "time of one run, ms")
    figure.update_layout(xaxis_range=[0, 1.2 * max(top["time_ms"], default=0) or 1])
    return finish(figure, 110 + 38 * len(top), "" if names else "No layer was timed.")
