"""Stacked bars: the bytes of weights and of activations of every module."""

import plotly.graph_objects as go

from sdtrt.analysis.plot_support.layout import FOOTPRINT_PARTS, stack_bars
from sdtrt.analysis.plot_support.modules import blocks_of
from sdtrt.analysis.session import Analysis

TITLE = "Footprint by module"
CAPTION = "The modules, or layers, with the largest footprint. Each layer that moves a tensor counts it."
SECTION, ORDER = "Memory", 2
TOP = 12


def draw(analysis: Analysis) -> go.Figure:
    """One bar per module, of weights and activations."""
    columns = [column for _, column, _ in FOOTPRINT_PARTS]
    frame = analysis.frame.assign(block=blocks_of(analysis.frame))
    sums = frame.groupby("block", sort=False)[columns].sum() / 1e6
    sums = sums.loc[sums.sum(axis=1).sort_values(ascending=False).index]
    sums = sums[sums.sum(axis=1) > 0].head(TOP)
    return stack_bars(sums, FOOTPRINT_PARTS, "%{x:,.4g} MB", "footprint, MB", "The size of no layer is known.")
