"""The layer table: every plan's layers as rows of one pandas DataFrame, with the columns of `COLUMNS`.

Roofline figures follow Williams, Waterman, Patterson, "Roofline" (CACM 52(4), 2009): a layer that does F operations and
moves M bytes cannot take less than max(F / peak rate, M / peak bandwidth), nor less than a launch. `bound` names the
largest of the three, `headroom_ms` is what a kernel at that limit would save.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from sdtrt.analysis.device_peaks import DevicePeaks, peaks_of
from sdtrt.plan.layers import Plan

TEXT = {
    "component": "engine that runs the layer, such as unet",
    "name": "the backend's name for the layer",
    "kind": "conv, gemm, attention, norm, pointwise, reformat, copy, shape or other",
    "op": "the backend's operator type",
    "kernel": "kernel that was chosen, TensorRT's tactic",
    "precision": "precision the layer computes in",
    "output_precision": "type of its first output",
    "module": "diffusers module path that the layer comes from",
    "bound": "what limits a perfect kernel: compute, memory or launch",
}
NUMBERS = {
    "time_ms": "median time of one run",
    "pct_time": "share of the sum of its engine's layer times, in percent",
    "flops": "floating-point operations, a multiply-add counts as two",
    "io_bytes": "bytes of inputs and outputs",
    "weight_bytes": "bytes of weights",
    "bytes_moved": "bytes read and written, weights included",
    "intensity_flop_per_byte": "flops / bytes_moved",
    "tflops_per_s": "flops / time_ms",
    "gb_per_s": "bytes_moved / time_ms",
    "pct_peak_compute": "tflops_per_s in percent of what the device can do for this kind and precision",
    "pct_peak_bandwidth": "gb_per_s in percent of the device's memory bandwidth",
    "ideal_ms": "time of a perfect kernel: the largest of compute, memory and launch",
    "headroom_ms": "time_ms - ideal_ms: what a perfect kernel would save in one run",
}
# Name and meaning of every column. What is not known is NaN, never 0; an empty module path is not known either.
COLUMNS = {**TEXT, **NUMBERS, "nodes": "tuple of the ONNX nodes that the layer implements"}


def to_frame(plans: Sequence[Plan], peaks: DevicePeaks | None = None) -> pd.DataFrame:
    """All layers of `plans`, in their order; `COLUMNS` documents the columns.

    `peaks` are the device's; without them each plan's device is looked up by its name.
    """
    parts = [_columns(plan, peaks or peaks_of(plan.device, plan.metadata)) for plan in plans]
    joined: dict[str, Any] = {name: np.concatenate([part[name] for part in parts]) if parts else [] for name in COLUMNS}
    types = {name: "float64" if name in NUMBERS else object for name in COLUMNS}
    return pd.DataFrame({name: pd.Series(joined[name], dtype=types[name]) for name in COLUMNS})


def _columns(plan: Plan, peaks: DevicePeaks | None) -> Mapping[str, np.ndarray[Any, Any]]:
    layers = plan.layers
    text: dict[str, list[str | None]] = {
        "component": [plan.component for _ in layers],
        **{key: [getattr(x, key) for x in layers] for key in ("name", "kind", "op", "kernel", "precision")},
        "output_precision": [x.outputs[0].dtype if x.outputs else None for x in layers],
        "module": [x.module or None for x in layers],
    }
    time_ms = _numbers([x.time_ms for x in layers])
    flops, moved = _numbers([x.flops for x in layers]), _numbers([x.bytes_moved for x in layers])
    peak_tflops = _numbers([peaks.tflops(x.kind, x.precision) if peaks else None for x in layers])
    bandwidth = peaks.gb_per_s if peaks and peaks.gb_per_s else np.nan
    launch_us = peaks.launch_us if peaks and peaks.launch_us else np.nan
    rate, stream = _ratio(flops, time_ms) / 1e9, _ratio(moved, time_ms) / 1e6
    limits = np.stack([np.where(flops == 0, 0, flops / peak_tflops / 1e9), moved / bandwidth / 1e6])
    # Half a roofline is none: a layer whose work or traffic is not known has no ideal time.
    floor = np.append(limits, np.full((1, len(layers)), 0 if np.isnan(launch_us) else launch_us / 1e3), axis=0)
    ideal = np.where(np.isnan(limits).any(axis=0), np.nan, floor.max(axis=0))
    names = np.array(["compute", "memory", "launch"], dtype=object)[np.nan_to_num(floor).argmax(axis=0)]
    numbers = {
        "time_ms": time_ms,
        "pct_time": 100 * _ratio(time_ms, np.full(len(layers), np.nansum(time_ms))),
        "flops": flops,
        "io_bytes": _numbers([x.io_bytes for x in layers]),
        "weight_bytes": _numbers([x.weight_bytes for x in layers]),
        "bytes_moved": moved,
        "intensity_flop_per_byte": _ratio(flops, moved),
        "tflops_per_s": rate,
        "gb_per_s": stream,
        "pct_peak_compute": 100 * rate / peak_tflops,
        "pct_peak_bandwidth": 100 * stream / bandwidth,
        "ideal_ms": ideal,
        "headroom_ms": np.maximum(time_ms - ideal, 0),
    }
    nodes = np.empty(len(layers), dtype=object)
    nodes[:] = [x.nodes for x in layers]
    objects = {name: _objects(values) for name, values in text.items()}
    return {**objects, "bound": np.where(np.isnan(ideal), np.nan, names), **numbers, "nodes": nodes}


def _objects(values: Sequence[object]) -> np.ndarray[Any, Any]:
    column = np.empty(len(values), dtype=object)
    column[:] = [np.nan if value is None else value for value in values]
    return column


def _numbers(values: Sequence[float | None]) -> np.ndarray[Any, Any]:
    column = np.array([np.nan if value is None else value for value in values], dtype="float64")
    return np.where(np.isfinite(column), column, np.nan)


def _ratio(top: np.ndarray[Any, Any], bottom: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return top / np.where(bottom > 0, bottom, np.nan)
