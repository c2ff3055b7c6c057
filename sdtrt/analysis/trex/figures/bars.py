"""Bar charts and histograms over a layer table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from sdtrt.analysis.trex.colors import GRID_COLOR, default_pallete
from sdtrt.analysis.trex.figures.labels import Colormap, categories, color_of, escaped, key_of, title_text
from sdtrt.analysis.trex.notebook import show

if TYPE_CHECKING:
    import plotly.graph_objects as go

CLEAR = "rgba(0,0,0,0)"
MIN_BINS, MAX_BINS = 10, 200
_LARGE = 1e5


def trex_base_layout(fig: go.Figure, gridcolor: str | None = None) -> go.Figure:
    """White background and a light grid."""
    grid = {"gridcolor": gridcolor or GRID_COLOR, "zerolinecolor": gridcolor or GRID_COLOR}
    return fig.update_layout(xaxis=grid, yaxis=grid, plot_bgcolor=CLEAR)


def create_layout(
    title: str,
    size: tuple[int | None, int | None],
    x_title: str,
    y_title: str,
    orientation: str,
    show_axis_ticks: Sequence[bool] = (True, True),
) -> go.Layout:
    """Layout of bars.

    Args:
        title: of the figure; `<br>` breaks its lines.
        size: width and height in pixels; None for plotly's own.
        x_title: title of the axis of names.
        y_title: title of the axis of values.
        orientation: "v", or "h", for which the two titles change places.
        show_axis_ticks: whether the x and the y axis have labels.
    """
    import plotly.graph_objects as go

    x, y = (y_title, x_title) if orientation == "h" else (x_title, y_title)
    grid = {"gridcolor": GRID_COLOR, "automargin": True}
    return go.Layout(
        title={"text": title_text(title), "x": 0.5, "xanchor": "center"},
        width=size[0],
        height=size[1],
        xaxis={"title": escaped(x), "showticklabels": show_axis_ticks[0], "showgrid": orientation == "h", **grid},
        yaxis={"title": escaped(y), "showticklabels": show_axis_ticks[1], "showgrid": orientation == "v", **grid},
        plot_bgcolor=CLEAR,
        uniformtext={"minsize": 7, "mode": "hide"},
        legend={"yanchor": "top", "y": 0.99, "xanchor": "right", "x": 0.99},
    )


def plotly_bar2(
    df: pd.DataFrame | Mapping[str, pd.DataFrame],
    title: str,
    values_col: str,
    names_col: str,
    orientation: str = "v",
    color: str | None = None,
    size: tuple[int | None, int | None] = (None, None),
    use_slider: bool = False,
    colormap: Colormap | None = None,
    show_axis_ticks: Sequence[bool] = (False, True),
    showlegend: bool = False,
    xaxis_title: str | None = None,
    yaxis_title: str | None = None,
    do_show: bool = True,
) -> go.Figure:
    """One bar for each row, or groups of bars for a dict of tables.

    Args:
        df: a table, or tables by the name of their group.
        title: of the figure; `<br>` breaks its lines.
        values_col: column of the values.
        names_col: column of the bars' names.
        orientation: "v" or "h".
        color: a column: numbers get a color scale, anything else a color per category from `colormap`.
        size: width and height in pixels; None for plotly's own.
        use_slider: add a range slider below the x axis.
        colormap: colors by category.
        show_axis_ticks: whether the x and the y axis have labels.
        showlegend: whether groups are listed.
        xaxis_title: `names_col` by default.
        yaxis_title: `values_col` by default.
        do_show: show the figure in a notebook.
    """
    import plotly.graph_objects as go

    layout = create_layout(
        title, size, xaxis_title or names_col, yaxis_title or values_col, orientation, show_axis_ticks
    )
    fig = go.Figure(layout=layout)
    axis, names_axis = ("y", "x") if orientation == "v" else ("x", "y")
    for name, table in df.items() if isinstance(df, Mapping) else [(None, df)]:
        digits = _format(table[values_col])
        value = f"%{{{axis}:{digits}}}" if digits else f"%{{{axis}}}"
        hover = f"{escaped(names_col)}: %{{{names_axis}}}<br>{escaped(values_col)}: {value}"
        fig.add_bar(
            **{axis: table[values_col], names_axis: [escaped(label) for label in table[names_col]]},
            orientation=orientation,
            marker=_marker(table, color, colormap),
            text=table[values_col],
            texttemplate=f"%{{value:{digits}}}" if digits else "%{value}",
            hovertemplate=f"{hover}<br>{escaped(color)}: %{{customdata}}" if color else hover,
            customdata=[escaped(entry) for entry in table[color]] if color else None,
            name=None if name is None else escaped(name),
            showlegend=showlegend,
        )
    if use_slider:
        fig.update_xaxes(rangeslider_visible=True)
    return show(fig, do_show)


def _format(values: pd.Series) -> str:
    """Four decimals as in TREx, but "602.4M" for what is large; integers as they are."""
    if not pd.api.types.is_float_dtype(values):
        return ""
    return ".4s" if values.abs().max() >= _LARGE else ".4f"


def _marker(df: pd.DataFrame, color: str | None, colormap: Colormap | None) -> dict[str, Any]:
    # The border that bars have by default would cover hundreds of narrow ones.
    bare: dict[str, Any] = {"line": {"width": 0}}
    if color is None:
        return bare
    if pd.api.types.is_numeric_dtype(df[color]):
        return {**bare, "color": df[color], "colorbar": {"title": escaped(color)}}
    colors = categories(df[color], colormap)
    return {**bare, "color": [color_of(colors, key_of(value)) for value in df[color]]}


def plotly_hist(
    df: pd.DataFrame,
    title: str,
    values_col: str,
    xaxis_title: str,
    color: str | None = None,
    colormap: Colormap | None = None,
    do_show: bool = True,
) -> go.Figure:
    """Histogram of a column, stacked by category.

    Args:
        df: the table; rows without a value are left out.
        title: of the figure.
        values_col: column of the values.
        xaxis_title: title of the value axis.
        color: column of the categories; none by default.
        colormap: colors by category.
        do_show: show the figure in a notebook.
    """
    import plotly.graph_objects as go

    fig = go.Figure()
    known = df.dropna(subset=[values_col])
    bins = min(max(len(known), MIN_BINS), MAX_BINS)
    colors = categories(known[color], colormap) if color else {}
    groups = known.groupby(color, sort=False) if color else [(values_col, known)]
    for key, rows in groups:
        marker = {"color": color_of(colors, key) if color else default_pallete[0]}
        fig.add_histogram(x=rows[values_col], name=escaped(key), nbinsx=bins, marker=marker, bingroup=1)
    axes = {"xaxis_title": title_text(xaxis_title), "yaxis_title": "count"}
    trex_base_layout(fig).update_layout(title_text=title_text(title), barmode="stack", bargap=0.05, **axes)
    return show(fig, do_show)
