"""What a profiler recorded of each layer, as TREx's `latency.*` columns; NaN for a layer that it does not name."""

from __future__ import annotations

from collections.abc import Sequence
from math import nan
from statistics import fmean, median

import pandas as pd

from sdtrt.analysis.trex.layer import Layer
from sdtrt.plan.layers import Layer as PlanLayer
from sdtrt.plan.layers import Plan, Timing

COLUMNS = {
    "latency.time": "total_ms",
    "latency.avg_time": "mean_ms",
    "latency.median_time": "median_ms",
    "latency.pct_time": "percentage",
}


def times(layers: Sequence[Layer], plan: Plan) -> pd.DataFrame:
    """The four columns. Each layer brings its own record, so none is joined by its place in a list.

    Shares that were not recorded are those of the sum over all layers of the plan, with those that TREx leaves out.
    """
    timings = [timing_of(layer.source) for layer in layers]
    columns = {name: [getattr(timing, field) for timing in timings] for name, field in COLUMNS.items()}
    table = pd.DataFrame(columns, dtype="float64")
    whole = sum(timing_of(layer).mean_ms or 0 for layer in plan.layers) or nan
    table["latency.pct_time"] = table["latency.pct_time"].fillna(100 * table["latency.avg_time"] / whole)
    return table


def timing_of(layer: PlanLayer) -> Timing:
    """The record of a layer, summed up from its runs where those were recorded."""
    if layer.times_ms:
        runs = layer.times_ms
        return Timing(total_ms=sum(runs), mean_ms=fmean(runs), median_ms=median(runs))
    return layer.timing or Timing()


def total(values: Sequence[float]) -> float:
    """Sum of what is known; NaN when nothing is."""
    known = [value for value in values if value == value]
    return sum(known) if known else nan
