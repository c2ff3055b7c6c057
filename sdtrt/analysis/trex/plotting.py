"""Bars, histograms and pies over layer tables, with TREx's names and arguments.

Each function returns a plotly figure and shows it in a notebook if `do_show`. plotly.express is not used here: it draws
a trace per category, so that bars would be ordered by category instead of by layer.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from sdtrt.analysis.trex.colors import CLEAR, EDGE_COLOR, GRID_COLOR
from sdtrt.analysis.trex.figures.labels import Colormap, color_of, colors_of, escaped, title_text, trex_base_layout
from sdtrt.analysis.trex.misc import stack_dataframes
from sdtrt.analysis.trex.notebook import display_df, show

if TYPE_CHECKING:
    import plotly.graph_objects as go

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

MIN_BINS, MAX_BINS = 10, 200
_LARGE = 1e5


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

    titles = (xaxis_title or names_col, yaxis_title or values_col)
    fig = go.Figure(layout=create_layout(title, size, *titles, orientation, show_axis_ticks))
    axis, names_axis = ("y", "x") if orientation == "v" else ("x", "y")
    for name, table in df.items() if isinstance(df, Mapping) else [(None, df)]:
        digits = _format(table[values_col])
        hover = f"{escaped(names_col)}: %{{{names_axis}}}<br>{escaped(values_col)}: %{{{axis}{digits}}}"
        fig.add_bar(
            **{axis: table[values_col], names_axis: [escaped(label) for label in table[names_col]]},
            orientation=orientation,
            marker=_marker(table, color, colormap),
            text=table[values_col],
            texttemplate=f"%{{value{digits}}}",
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
    return ":.4s" if values.abs().max() >= _LARGE else ":.4f"


def _marker(df: pd.DataFrame, color: str | None, colormap: Colormap | None) -> dict[str, Any]:
    # The border that bars have by default would cover hundreds of narrow ones.
    bare: dict[str, Any] = {"line": {"width": 0}}
    if color is None:
        return bare
    if pd.api.types.is_numeric_dtype(df[color]):
        return {**bare, "color": df[color], "colorbar": {"title": escaped(color)}}
    return {**bare, "color": colors_of(df[color], colormap)}


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
    groups = known[color] if color else pd.Series(values_col, known.index)
    colors = dict(zip(groups, colors_of(groups, colormap if color else None), strict=True))
    for key, rows in known.groupby(groups, sort=False):
        fig.add_histogram(x=rows[values_col], name=escaped(key), nbinsx=bins, marker_color=colors[key], bingroup=1)
    axes = {"xaxis_title": title_text(xaxis_title), "yaxis_title": "count"}
    trex_base_layout(fig).update_layout(title_text=title_text(title), barmode="stack", bargap=0.05, **axes)
    return show(fig, do_show)


def plotly_pie(
    df: pd.DataFrame, title: str, values: str, names: str, colormap: Colormap | None = None, do_show: bool = True
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
    fig = plotly_pie2(title, [(df, "", values, names)], colormap=colormap, do_show=False)
    return show(fig.update_traces(hole=0, name=escaped(title)), do_show)


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
        fig.add_pie(
            labels=[escaped(label) for label in df[names]],
            values=df[values],
            name=escaped(name),
            hole=0.4,
            marker={"colors": colors_of(df[names], colormap), "line": {"color": EDGE_COLOR, "width": 1}},
            texttemplate="%{value:.1f}" if pd.api.types.is_float_dtype(df[values]) else "%{value}",
            hoverinfo="label+percent",
            textposition="inside",
            row=index // columns + 1,
            col=index % columns + 1,
        )
    return show(fig.update_layout(title={"text": title_text(title), "x": 0.5}), do_show)


def rotate_columns(df: pd.DataFrame) -> pd.DataFrame:
    """The last column first."""
    columns = list(df.columns)
    return df[columns[-1:] + columns[:-1]]


def stacked_tabular_df(
    bar_names: Sequence[str], df_list: Sequence[pd.DataFrame], names_col: str, values_col: str, empty_symbol: object = 0
) -> pd.DataFrame:
    """The table beside `stacked_bars`: a row for each name, a column for each bar.

    As in TREx the first column holds the names and has the name of the values.

    Args:
        bar_names: a name for each table.
        df_list: the tables.
        names_col: their column of names.
        values_col: their column of values.
        empty_symbol: stands where a table lacks a name.
    """
    stacked = stack_dataframes(df_list, names_col, values_col, empty_symbol)
    df = pd.DataFrame.from_dict(stacked, orient="index", columns=list(bar_names))
    df[values_col] = list(stacked)
    return rotate_columns(df)


def stacked_tabular(*args: Any, **kwargs: Any) -> None:
    """Show `stacked_tabular_df` of the same arguments."""
    display_df(stacked_tabular_df(*args, **kwargs))


def stacked_bars(
    title: str,
    bar_names: Sequence[str],
    df_list: Sequence[pd.DataFrame],
    names_col: str,
    values_col: str,
    empty_symbol: object = 0,
    colormap: Colormap | None = None,
    display_tbl: bool = True,
    fig: go.Figure | None = None,
    xaxis_title: str | None = None,
    yaxis_title: str | None = None,
    do_show: bool = True,
) -> go.Figure:
    """One bar for each table, stacked by name.

    Args:
        title: of the figure.
        bar_names: a name for each table.
        df_list: the tables.
        names_col: their column of names.
        values_col: their column of values.
        empty_symbol: value where a table lacks a name.
        colormap: colors by name.
        display_tbl: show `stacked_tabular_df` as well.
        fig: figure to which the bars are added; it is then not shown.
        xaxis_title: `names_col` by default.
        yaxis_title: `values_col` by default.
        do_show: show the figure in a notebook.
    """
    import plotly.graph_objects as go

    stacked = stack_dataframes(df_list, names_col, values_col, empty_symbol)
    bars = [
        go.Bar(
            name=escaped(name),
            x=[escaped(bar) for bar in bar_names],
            y=values,
            text=values,
            texttemplate="%{text:.4f}",
            **({"marker_color": color_of(colormap, name)} if colormap else {}),
        )
        for name, values in stacked.items()
    ]
    show_figure = do_show and fig is None
    fig = (trex_base_layout(go.Figure()) if fig is None else fig).add_traces(bars)
    fig.update_layout(title={"text": title_text(title), "x": 0.5}, barmode="stack", showlegend=colormap is not None)
    fig.update_layout(uniformtext={"minsize": 8, "mode": "hide"})
    fig.update_layout(xaxis_title=escaped(xaxis_title or names_col), yaxis_title=escaped(yaxis_title or values_col))
    show(fig, show_figure)
    if display_tbl:
        stacked_tabular(bar_names, df_list, names_col, values_col, empty_symbol)
    return fig
