"""Pies over a layer table."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import pandas as pd

from sdtrt.analysis.trex.colors import EDGE_COLOR
from sdtrt.analysis.trex.figures.labels import Colormap, categories, color_of, escaped, key_of, title_text
from sdtrt.analysis.trex.notebook import show

if TYPE_CHECKING:
    import plotly.graph_objects as go


def plotly_pie(
    df: pd.DataFrame,
    title: str,
    values: str,
    names: str,
    colormap: Colormap | None = None,
    do_show: bool = True,
) -> go.Figure:
    """One pie.

    Args:
        df: a row per slice.
        title: of the figure.
        values: column of the slices' sizes.
        names: column of the slices' names.
        colormap: colors by name.
        do_show: show the figure in a notebook.
    """
    import plotly.graph_objects as go

    fig = go.Figure(_pie(df, title, values, names, colormap))
    fig.update_layout(title={"text": title_text(title), "x": 0.5})
    return show(fig, do_show)


def plotly_pie2(
    title: str,
    charts: Sequence[tuple[pd.DataFrame, str, str, str]],
    max_cols: int = 3,
    colormap: Colormap | None = None,
    do_show: bool = True,
) -> go.Figure:
    """A grid of rings.

    Args:
        title: of the figure.
        charts: table, title, column of values and column of names of each ring.
        max_cols: rings in a row.
        colormap: colors by name.
        do_show: show the figure in a notebook.
    """
    from plotly.subplots import make_subplots

    columns = max(min(max_cols, len(charts)), 1)
    rows = max(math.ceil(len(charts) / columns), 1)
    titles = [title_text(chart[1]) for chart in charts]
    fig = make_subplots(rows, columns, specs=[[{"type": "domain"}] * columns] * rows, subplot_titles=titles)
    for index, (df, name, values, names) in enumerate(charts):
        pie = _pie(df, name, values, names, colormap)
        fig.add_trace(pie.update(hole=0.4), index // columns + 1, index % columns + 1)
    fig.update_layout(title={"text": title_text(title), "x": 0.5})
    return show(fig, do_show)


def _pie(df: pd.DataFrame, title: str, values: str, names: str, colormap: Colormap | None) -> go.Pie:
    import plotly.graph_objects as go

    colors = categories(df[names], colormap)
    figures = ":.1f" if pd.api.types.is_float_dtype(df[values]) else ""
    return go.Pie(
        labels=[escaped(name) for name in df[names]],
        values=df[values],
        name=escaped(title),
        marker={
            "colors": [color_of(colors, key_of(key)) for key in df[names]],
            "line": {"color": EDGE_COLOR, "width": 1},
        },
        texttemplate=f"%{{value{figures}}}",
        hoverinfo="label+percent",
        textposition="inside",
    )
