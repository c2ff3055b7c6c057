"""TREx's comparisons of plans, over `sdtrt.analysis.comparison.compare`.

TREx matches layers one to one by their shapes. Here a row is a group of layers of both plans that do the same work,
matched by ONNX nodes where they are known: "these 3 layers became 1" is one row.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import nan
from typing import TYPE_CHECKING, Any

import pandas as pd

from sdtrt.analysis.comparison.compare import diff
from sdtrt.analysis.trex.activations import PRECISIONS
from sdtrt.analysis.trex.colors import layer_colormap, precision_colormap
from sdtrt.analysis.trex.engine_plan import EnginePlan, summary_dict
from sdtrt.analysis.trex.figures.menu import menu, shown
from sdtrt.analysis.trex.layer import Layer
from sdtrt.analysis.trex.misc import group_count, group_sum_attr
from sdtrt.analysis.trex.notebook import display_df, in_notebook
from sdtrt.analysis.trex.plotting import stacked_bars

if TYPE_CHECKING:
    import plotly.graph_objects as go

__all__ = [
    "aligned_merge_plans",
    "compare_engines_layer_latencies",
    "compare_engines_overview",
    "compare_engines_summaries_tbl",
    "get_plans_names",
]


def get_plans_names(plans: Sequence[EnginePlan]) -> list[str]:
    """Names of the plans, those that occur twice with a number."""
    names = [plan.name for plan in plans]
    return [name if names.count(name) == 1 else f"{name} ({index + 1})" for index, name in enumerate(names)]


def compare_engines_overview(plans: Sequence[EnginePlan], do_show: bool = True) -> go.Figure | None:
    """Latency and number of layers of each plan, by type and by precision: one figure with a menu."""
    names = get_plans_names(plans)
    figures = {}
    for column, colormap in (("type", layer_colormap), ("precision", precision_colormap)):
        for value, unit in (("latency.avg_time", "ms"), ("count", "layers")):
            counted = value == "count"
            tables = [group_count(p.df, column) if counted else group_sum_attr(p.df, column, value) for p in plans]
            title = f"{'Layer count' if counted else 'Latency'} by {column} ({unit})"
            figures[title] = stacked_bars(
                title, names, tables, column, value, colormap=colormap, display_tbl=False, do_show=False
            )
    return shown(menu(figures), do_show)


def compare_engines_summaries_tbl(plans: Sequence[EnginePlan], orientation: str = "vertical") -> None:
    """Show the summaries beside each other: a column per plan, or a row with `orientation` "horizontal"."""
    table = pd.DataFrame({name: summary_dict(plan) for name, plan in zip(get_plans_names(plans), plans, strict=True)})
    display_df(table if orientation == "vertical" else table.T)


def aligned_merge_plans(plan1: EnginePlan, plan2: EnginePlan) -> pd.DataFrame:
    """A row for each group of layers that do the same work, with times, speed-up, precisions, tactics and names."""
    rows, first = [], ["type", "time (1)", "time (2)", "speedup (2)"]
    for group in diff(plan1.folded, plan2.folded).groups:
        values = (Layer(group.main, group.main.name).type, group.before_ms, group.after_ms, group.speedup)
        row = {name: nan if value is None else value for name, value in zip(first, values, strict=True)}
        for number, layers in enumerate((group.before, group.after), 1):
            row[f"precision ({number})"] = _text(PRECISIONS.get(x.precision or "", x.precision) for x in layers)
            row[f"tactic ({number})"] = _text(x.kernel for x in layers)
            row[f"name ({number})"] = _text(x.name for x in layers)
        rows.append(row | {"matched by": group.by})
    table = pd.DataFrame(rows, columns=None if rows else first)
    return table.sort_values("time (1)", ascending=False, kind="stable", ignore_index=True)


def compare_engines_layer_latencies(
    plan1: EnginePlan, plan2: EnginePlan, threshold: float = 0.03, exact_matching: bool | None = None
) -> None:
    """Show `aligned_merge_plans`.

    Args:
        plan1: the baseline.
        plan2: the candidate.
        threshold: a speed-up that differs from 1 by more is colored.
        exact_matching: TREx's; ignored, since layers are matched in one way, by what they compute.
    """
    table = aligned_merge_plans(plan1, plan2)
    if not in_notebook():
        display_df(table)
        return

    def color(speedup: Any) -> str:
        changed = abs(speedup - 1) > threshold
        return f"background-color: {'#cdeac0' if speedup > 1 else '#f6c6c6'}; color: black" if changed else ""

    display_df(table.style.map(color, subset=["speedup (2)"]))


def _text(values: Iterable[str | None]) -> str:
    return "\n".join(dict.fromkeys(value for value in values if value))
