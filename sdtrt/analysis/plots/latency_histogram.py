"""Two histograms over layer time: how many layers are that quick, and how much of the time they take."""

import plotly.graph_objects as go

from sdtrt.analysis.colors import LINE, WEIGHTS
from sdtrt.analysis.plot_support.bins import Bins
from sdtrt.analysis.plot_support.layout import NOT_TIMED, finish
from sdtrt.analysis.session import Analysis

TITLE = "Latency histogram"
CAPTION = "Layers by their time, in quarters of a decade: their number above, and below the time that they add up to."
SECTION, ORDER = "Time", 6


def draw(analysis: Analysis) -> go.Figure:
    """Number and time of the layers in logarithmic bins; layers that take no time have no place in them."""
    times = analysis.frame["time_ms"].to_numpy()
    times = times[times > 0]
    figure = go.Figure()
    if len(times):
        bins = Bins.over(times)
        for axis, weights, color, text in (("y", None, LINE, "%{y:,} layers"), ("y2", times, WEIGHTS, "%{y:.4g} ms")):
            figure.add_bar(
                **bins.bars(times, "ms", weights),
                yaxis=axis,
                marker={"color": color},
                hovertemplate=f"%{{customdata}}: {text}<extra></extra>",
            )
        bins.label(figure, "time of a layer, ms")
        figure.update_layout(
            showlegend=False,
            xaxis_anchor="y2",
            yaxis={"title": "layers", "domain": [0.54, 1], "fixedrange": True},
            yaxis2={"title": "sum, ms", "domain": [0, 0.46], "fixedrange": True, "anchor": "x"},
        )
    return finish(figure, 566, "" if len(times) else NOT_TIMED)
