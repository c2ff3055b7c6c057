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

    As in TREx the names stand in a first column that is called as the values.
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
    """One bar for each table, stacked by name. Bars are added to `fig` if it is given, which is then not shown."""
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
