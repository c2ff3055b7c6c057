"""Histograms over size: how many layers have that much of weights, and of activations."""

import numpy as np
import plotly.graph_objects as go

from sdtrt.analysis.plot_support.bins import Bins
from sdtrt.analysis.plot_support.layout import FOOTPRINT_PARTS, finish
from sdtrt.analysis.session import Analysis

TITLE = "Footprint histogram"
CAPTION = "Layers by the size of their weights and of their inputs and outputs, in quarters of a decade."
SECTION, ORDER = "Memory", 3


def draw(analysis: Analysis) -> go.Figure:
    """Number of layers in logarithmic bins; what is 0 or not known has no place in them."""
    sizes = {name: analysis.frame[column].to_numpy() / 1e6 for name, column, _ in FOOTPRINT_PARTS}
    sizes = {name: values[values > 0] for name, values in sizes.items()}
    whole = np.concatenate(list(sizes.values()))
    figure = go.Figure()
    if len(whole):
        bins = Bins.over(whole)
        for name, _, color in FOOTPRINT_PARTS:
            if len(sizes[name]):
                figure.add_bar(
                    **bins.bars(sizes[name], "MB"),
                    name=name,
                    marker={"color": color},
                    hovertemplate=f"{name}, %{{customdata}}: %{{y:,}} layers<extra></extra>",
                )
        bins.label(figure, "size in a layer, MB")
        figure.update_yaxes(title="layers", fixedrange=True)
    return finish(figure, 566, "" if len(whole) else "The size of no layer is known.")
