"""Scatter plots over two or three columns of a layer table."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from sdtrt.analysis.trex.figures.labels import escaped, title_text, trex_base_layout

if TYPE_CHECKING:
    import plotly.graph_objects as go

# The largest marker has a diameter of 18 pixels: plotly.express leaves out the 2 of plotly's own formula for `sizeref`.
_SIZE_MAX = 18 / 2**0.5


def points(df: pd.DataFrame, title: str, axes: tuple[str, ...], color: str, size: str | None) -> go.Figure:
    """Markers in two or three dimensions.

    Args:
        df: a row per marker; rows without one of the values are left out.
        title: of the figure.
        axes: two or three columns.
        color: column of the colors.
        size: column of the markers' areas; all are equal without one.
    """
    import plotly.express as px
    import plotly.graph_objects as go

    columns = [*axes, color, *([size] if size else [])]
    df = df.dropna(subset=df.columns.intersection(columns).tolist())
    if len(df) == 0 or not set(columns) <= set(df.columns):
        return trex_base_layout(go.Figure(layout_title_text=title_text(title)))
    draw = px.scatter if len(axes) == 2 else px.scatter_3d
    labels, names = {column: escaped(column) for column in columns}, df["Name"].map(escaped)
    places = dict(zip("xyz", axes, strict=False))
    look = {"size_max": _SIZE_MAX, "opacity": 0.7, "title": title_text(title)}
    fig = draw(df, **places, color=color, size=size, hover_name=names, labels=labels, **look)
    # A color bar of its own for each trace, since a menu puts the traces of several figures into one.
    fig.update_traces(marker={"coloraxis": None, "colorbar": {"title": {"text": escaped(color)}}})
    fig.update_traces(marker={"sizemin": 3} if size else {"size": 10})
    if len(axes) > 2:
        # From a little further away than by default, so that the titles of the axes are in the picture.
        fig.update_scenes(camera_eye={"x": 1.6, "y": 1.6, "z": 1.2})
    return trex_base_layout(fig).update_layout(title_x=0.5)
