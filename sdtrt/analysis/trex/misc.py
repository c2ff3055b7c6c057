"""Grouping and stacking of tables, under TREx's names."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

__all__ = ["group_count", "group_mean_attr", "group_sum_attr", "shape_to_str", "stack_dataframes", "stack_dicts"]


def group_count(df: pd.DataFrame, grouping_attr: str) -> pd.DataFrame:
    """How many rows have each value of a column: columns `grouping_attr` and `count`."""
    return df.groupby(grouping_attr).size().reset_index(name="count")


def group_sum_attr(df: pd.DataFrame, grouping_attr: str, reduced_attr: str) -> pd.DataFrame:
    """Sum of one column for each value of another; NaN where no row of a group is known."""
    return df.groupby(grouping_attr)[reduced_attr].sum(min_count=1).reset_index()


def group_mean_attr(df: pd.DataFrame, grouping_attr: str, reduced_attr: str) -> pd.DataFrame:
    """Mean of one column for each value of another."""
    return df.groupby(grouping_attr)[reduced_attr].mean().reset_index()


def shape_to_str(shape: Iterable[object]) -> str:
    """[1, 64, 56, 56] as "[1,64,56,56]"."""
    return f"[{','.join(map(str, shape))}]"


def stack_dicts(dict_list: Sequence[Mapping[Any, Any]], empty_placeholder: object = 0) -> dict[Any, list[Any]]:
    """For each key of any of the dicts its value in every one of them, in the order of first appearance."""
    keys = dict.fromkeys(key for one in dict_list for key in one)
    return {key: [one.get(key, empty_placeholder) for one in dict_list] for key in keys}


def stack_dataframes(
    df_list: Sequence[pd.DataFrame], names_col: str, values_col: str, empty_placeholder: object = 0
) -> dict[Any, list[Any]]:
    """For each name its value in every table.

    Args:
        df_list: the tables.
        names_col: their column of names.
        values_col: their column of values.
        empty_placeholder: value where a table lacks a name.
    """
    pairs = [dict(zip(df[names_col].tolist(), df[values_col].tolist(), strict=True)) for df in df_list]
    return stack_dicts(pairs, empty_placeholder)
