"""Two rings: in which types the layers compute, by their number and by their time."""

import pandas as pd
import plotly.graph_objects as go

from sdtrt.analysis.colors import precision_color
from sdtrt.analysis.plot_support.layout import finish, label
from sdtrt.analysis.session import Analysis

TITLE = "Precision of layers"
CAPTION = "The type in which a layer computes: the share of the layers on the left, of the layer time on the right."
SECTION, ORDER = "Precision", 1


def draw(analysis: Analysis) -> go.Figure:
    """One ring of counts, and one of times when there are any."""
    frame = analysis.frame.assign(precision=analysis.frame["precision"].fillna("unknown"))
    groups = frame.groupby("precision")
    counts, times = groups.size().sort_values(ascending=False), groups["time_ms"].sum()
    figure = go.Figure()
    if len(counts):
        timed = bool(times.sum() > 0)
        _ring(figure, counts, "layers", [0, 0.48 if timed else 1], "%{value:,} layers")
        if timed:
            _ring(figure, times, "time", [0.52, 1], "%{value:.4g} ms")
    return finish(figure, 400, "" if len(counts) else "There are no layers.")


def _ring(figure: go.Figure, values: pd.Series, title: str, place: list[float], text: str) -> None:
    figure.add_pie(
        labels=[label(name, 24) for name in values.index],
        values=values.tolist(),
        marker={"colors": [precision_color(str(name)) for name in values.index]},
        hole=0.58,
        sort=False,
        title={"text": title, "font": {"size": 14}},
        domain={"x": place},
        textinfo="percent",
        textposition="inside",
        insidetextorientation="horizontal",
        hovertemplate=f"%{{label}}: {text}, %{{percent}}<extra></extra>",
    )
