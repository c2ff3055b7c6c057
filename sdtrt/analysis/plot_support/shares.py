"""Stacked bars, one per engine: what share of its layer time each value of a column takes."""

from collections.abc import Mapping

import pandas as pd
import plotly.graph_objects as go

from sdtrt.analysis.plot_support.layout import NOT_TIMED, finish, label, name_bars


def share_bars(frame: pd.DataFrame, column: str, colors: Mapping[str, str]) -> go.Figure:
    """One bar per engine with times, one color per key of `colors`."""
    timed = frame.dropna(subset=["pct_time"])
    bars = list(timed["component"].unique())
    figure = go.Figure()
    for value, color in colors.items():
        own = timed[timed[column] == value].groupby("component")
        sums, counts = own[["time_ms", "pct_time"]].sum(), own.size()
        if len(sums):
            facts = "%{x:.1f} %, %{customdata[0]:.4g} ms in %{customdata[1]:,} layers<extra></extra>"
            figure.add_bar(
                name=label(value, 24),
                y=[bars.index(component) for component in sums.index],
                x=sums["pct_time"].tolist(),
                customdata=list(zip(sums["time_ms"].tolist(), counts.tolist(), strict=True)),
                marker={"color": color},
                hovertemplate=f"{label(value, 40)}: {facts}",
            )
    figure.update_traces(texttemplate="%{x:.0f} %", textposition="inside", insidetextanchor="middle", textangle=0)
    name_bars(figure, [label(component, 40) for component in bars], "share of layer time, %")
    figure.update_layout(barmode="stack", uniformtext={"minsize": 10, "mode": "hide"}, xaxis_range=[0, 100])
    return finish(figure, 110 + 56 * len(bars), "" if bars else NOT_TIMED)
