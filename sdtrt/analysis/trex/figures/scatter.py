"""Scatter plots over two or three columns of a layer table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd

from sdtrt.analysis.trex.figures.bars import trex_base_layout
from sdtrt.analysis.trex.figures.labels import escaped, title_text

if TYPE_CHECKING:
    import plotly.graph_objects as go

_LARGEST_PX, _DEFAULT_PX = 18, 10


def points(df: pd.DataFrame, title: str, axes: tuple[str, ...], color: str, size: str | None) -> go.Figure:
    """Markers in two or three dimensions.

    Args:
        df: a row per marker; rows without one of the values are left out.
        title: of the figure.
        axes: two or three columns.
        color: column of the colors.
        size: column of the markers' areas; all are equal without one.
    """
    import plotly.graph_objects as go

    columns = [*axes, color, *([size] if size else [])]
    df = df.dropna(subset=[column for column in columns if column in df.columns])
    if len(df) == 0 or any(column not in df.columns for column in columns):
        return trex_base_layout(go.Figure(layout_title_text=title_text(title)))
    marker: dict[str, Any] = {"color": df[color], "colorbar": {"title": escaped(color)}, "opacity": 0.7}
    marker |= {"size": _DEFAULT_PX} if size is None else _sized(df[size])
    names = [escaped(name) for name in df["Name"]]
    parts = dict(zip("xyz", (df[axis] for axis in axes), strict=False))
    hover = "".join(f"{escaped(axis)}: %{{{letter}}}<br>" for letter, axis in zip("xyz", axes, strict=False))
    trace = go.Scatter if len(axes) == 2 else go.Scatter3d
    fig = go.Figure(trace(**parts, mode="markers", marker=marker, text=names, hovertemplate=f"%{{text}}<br>{hover}"))
    titles = {f"{letter}axis": {"title": {"text": escaped(axis)}} for letter, axis in zip("xyz", axes, strict=False)}
    # From a little further away than by default, so that the titles of the axes are in the picture.
    camera = {"camera": {"eye": {"x": 1.6, "y": 1.6, "z": 1.2}}}
    fig.update_layout(titles if len(axes) == 2 else {"scene": titles | camera})
    fig.update_traces(name="")
    return trex_base_layout(fig).update_layout(title={"text": title_text(title), "x": 0.5})


def _sized(values: pd.Series) -> dict[str, Any]:
    """Areas in proportion to the values."""
    largest = float(values.max()) or 1
    return {"size": values, "sizemode": "area", "sizeref": 2 * largest / _LARGEST_PX**2, "sizemin": 3}
