"""Several tables beside each other: a stacked bar for each, and the same figures as a table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from sdtrt.analysis.trex.figures.bars import trex_base_layout
from sdtrt.analysis.trex.figures.labels import Colormap, color_of, escaped, title_text
from sdtrt.analysis.trex.misc import stack_dataframes
from sdtrt.analysis.trex.notebook import display_df, show

if TYPE_CHECKING:
    import plotly.graph_objects as go


def rotate_columns(df: pd.DataFrame) -> pd.DataFrame:
    """The last column first."""
    columns = list(df.columns)
    return df[columns[-1:] + columns[:-1]]


def stacked_tabular_df(
    bar_names: Sequence[str],
    df_list: Sequence[pd.DataFrame],
    names_col: str,
    values_col: str,
    empty_symbol: object = 0,
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
    given = fig is not None
    fig = (fig if fig is not None else trex_base_layout(go.Figure())).add_traces(bars)
    fig.update_layout(title={"text": title_text(title), "x": 0.5}, barmode="stack", showlegend=colormap is not None)
    fig.update_layout(uniformtext={"minsize": 8, "mode": "hide"})
    fig.update_layout(xaxis_title=escaped(xaxis_title or names_col), yaxis_title=escaped(yaxis_title or values_col))
    show(fig, do_show and not given)
    if display_tbl:
        stacked_tabular(bar_names, df_list, names_col, values_col, empty_symbol)
    return fig
