"""Bars, histograms and pies over layer tables, with TREx's names and arguments.

Each function returns a plotly figure and shows it in a notebook if `do_show`.
"""

from sdtrt.analysis.trex.figures.bars import create_layout, plotly_bar2, plotly_hist, trex_base_layout
from sdtrt.analysis.trex.figures.pies import plotly_pie, plotly_pie2
from sdtrt.analysis.trex.figures.stacked import rotate_columns, stacked_bars, stacked_tabular, stacked_tabular_df

__all__ = [
    "create_layout",
    "plotly_bar2",
    "plotly_hist",
    "plotly_pie",
    "plotly_pie2",
    "rotate_columns",
    "stacked_bars",
    "stacked_tabular",
    "stacked_tabular_df",
    "trex_base_layout",
]
