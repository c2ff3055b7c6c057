"""Histogram weighted by time: how near to the roof the engine spends its time."""

import numpy as np
import plotly.graph_objects as go

from sdtrt.analysis.plot_support.layout import by_kind, finish, small
from sdtrt.analysis.session import Analysis

TITLE = "Time by efficiency"
CAPTION = (
    "Efficiency is the time of a perfect kernel in percent of the measured time. What stands at the left is to gain."
)
SECTION, ORDER = "Roofline", 2
STEP_PCT = 10


def draw(analysis: Analysis) -> go.Figure:
    """Milliseconds of the layers in each tenth of the roof, colored by kind; beyond 100 % is a figure to doubt."""
    frame = analysis.frame
    known = frame[(frame["time_ms"] > 0) & frame["ideal_ms"].notna()]
    percent = 100 * known["ideal_ms"] / known["time_ms"]
    known = known.assign(bin=np.minimum(percent // STEP_PCT, 100 // STEP_PCT).astype(int))
    figure = go.Figure()
    for kind, color, rows in by_kind(known):
        sums, counts = rows.groupby("bin")["time_ms"].sum(), rows.groupby("bin").size()
        starts = [i * STEP_PCT for i in sums.index]
        spans = [f"{start} to {start + STEP_PCT}" if start < 100 else "100 and more" for start in starts]
        figure.add_bar(
            name=kind,
            x=[start + STEP_PCT / 2 for start in starts],
            y=sums.tolist(),
            customdata=list(zip(spans, counts.tolist(), strict=True)),
            marker={"color": color},
            hovertemplate=f"{kind}, %{{customdata[0]}} %: %{{y:.4g}} ms in %{{customdata[1]:,}} layers<extra></extra>",
        )
    figure.update_layout(barmode="stack", bargap=0.08)
    lost = frame["time_ms"].sum() - known["time_ms"].sum()
    note = small(f"{lost:.4g} ms are in layers whose limit is not known") if lost > 0 else ""
    figure.update_xaxes(title=f"percent of what the device allows{note}", fixedrange=True, range=[0, 110], dtick=20)
    figure.update_yaxes(title="layer time, ms", fixedrange=True)
    return finish(figure, 566, "" if len(known) else "No layer has a known time and limit.")
