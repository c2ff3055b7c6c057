"""Stacked bars, one per engine: how its layer time divides among the kinds of layers."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import plotly.graph_objects as go

from sdtrt.analysis._colors import KIND_COLORS
from sdtrt.analysis.plots._layout import finish, label, name_bars
from sdtrt.plan import Plan

TITLE = "Layer time by kind"
CAPTION = "Each bar is one engine, 100 % the sum of its layer times. Click a kind in the legend to leave it out."


def draw(frame: pd.DataFrame, plans: Sequence[Plan]) -> go.Figure:
    """One bar per engine with times, one colour per kind."""
    timed = frame.dropna(subset=["pct_time"])
    bars = list(timed["component"].unique())
    figure = go.Figure()
    for kind, color in KIND_COLORS.items():
        sums = timed[timed["kind"] == kind].groupby("component")[["time_ms", "pct_time"]].sum()
        if len(sums):
            figure.add_bar(
                name=kind,
                y=[bars.index(component) for component in sums.index],
                x=sums["pct_time"].tolist(),
                customdata=sums["time_ms"].tolist(),
                marker={"color": color},
                hovertemplate=f"{kind}: %{{x:.1f}} %, %{{customdata:.4g}} ms<extra></extra>",
            )
    figure.update_traces(texttemplate="%{x:.0f} %", textposition="inside", insidetextanchor="middle", textangle=0)
    name_bars(figure, [label(component, 40) for component in bars], "share of layer time, %")
    figure.update_layout(barmode="stack", uniformtext={"minsize": 10, "mode": "hide"}, xaxis_range=[0, 100])
    return finish(figure, 110 + 56 * len(bars), "" if bars else "No layer was timed.")
