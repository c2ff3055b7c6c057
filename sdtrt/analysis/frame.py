"""The layer table: every plan's layers as rows of one pandas DataFrame, with the columns of `COLUMNS`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from sdtrt.plan import Layer, Plan

TEXT = {
    "component": "engine that runs the layer, such as unet",
    "name": "the backend's name for the layer",
    "kind": "conv, gemm, attention, norm, pointwise, reformat, copy, shape or other",
    "op": "the backend's operator type",
    "kernel": "kernel that was chosen",
    "precision": "precision the layer computes in",
    "module": "diffusers module path that the layer comes from",
}
NUMBERS = {
    "time_ms": "median time of one run",
    "pct_time": "share of the sum of its engine's layer times, in percent",
    "flops": "floating-point operations, a multiply-add counts as two",
    "bytes_moved": "bytes read and written",
    "weight_bytes": "bytes of weights",
    "intensity_flop_per_byte": "flops / bytes_moved",
    "tflops_per_s": "flops / time_ms",
    "gb_per_s": "bytes_moved / time_ms",
}
# Name and meaning of every column. What is not known is NaN, never 0; an empty module path is not known either.
COLUMNS = {**TEXT, **NUMBERS, "nodes": "tuple of the ONNX nodes that the layer implements"}


def to_frame(plans: Sequence[Plan]) -> pd.DataFrame:
    """All layers of `plans`, in their order; `COLUMNS` documents the columns."""
    rows = [_row(plan, layer) for plan in plans for layer in plan.layers]
    plan_of_row = np.repeat(np.arange(len(plans)), [len(plan.layers) for plan in plans])
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    text = frame[list(TEXT)].astype(object)
    frame[list(TEXT)] = text.where(text.notna(), np.nan)
    frame[list(NUMBERS)] = frame[list(NUMBERS)].astype("float64").replace([np.inf, -np.inf], np.nan)
    time_ms, bytes_moved = frame["time_ms"], frame["bytes_moved"]
    frame["pct_time"] = 100 * _ratio(time_ms, time_ms.groupby(plan_of_row).transform("sum"))
    frame["intensity_flop_per_byte"] = _ratio(frame["flops"], bytes_moved)
    frame["tflops_per_s"] = _ratio(frame["flops"], time_ms) / 1e9
    frame["gb_per_s"] = _ratio(bytes_moved, time_ms) / 1e6
    return frame


def _row(plan: Plan, layer: Layer) -> dict[str, object]:
    known = {name: getattr(layer, name) for name in COLUMNS if hasattr(layer, name)}
    return {**known, "component": plan.component, "module": layer.module or None}


def _ratio(top: pd.Series[float], bottom: pd.Series[float]) -> pd.Series[float]:
    return top / bottom.where(bottom > 0)
