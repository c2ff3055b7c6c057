"""Convolutions as the matrix products that they are: multiply-adds, arithmetic intensity, efficiency.

With N, C the batch and channels of the input, K and P x Q those of the output and its places, R x S the kernel and G
groups: macs = N K P Q C R S / G. Intensity is macs per byte, half of what a roofline in FLOP per byte shows; efficiency
is macs, or bytes, per millisecond and no share of any peak. TREx's notebooks rely on both, so they keep their names.

Unlike TREx the weights count with their own type, attr.K is divided by the groups (so that M x N x K = macs),
convolutions may have one or three spatial dimensions, and what is not known is NaN.
"""

from collections.abc import Mapping
from math import nan, prod
from typing import Any

import pandas as pd

from sdtrt.analysis.trex.activations import Activation

COLUMNS = ("macs", "arithmetic_intensity", "compute_efficiency", "memory_efficiency", "M", "N", "K")
_MIN_RANK = 3


def annotate_convolutions(convs: pd.DataFrame) -> None:
    """Add the columns `attr.macs`, `.arithmetic_intensity`, `.compute_efficiency`, `.memory_efficiency`, `.M .N .K`."""
    rows = [_annotated(conv) for conv in convs.to_dict("records")]
    for name, column in pd.DataFrame(rows, convs.index, COLUMNS, dtype="float64").items():
        whole = name in ("macs", "M", "N", "K") and column.notna().all()
        convs[f"attr.{name}"] = column.astype("int64") if whole else column


def _annotated(conv: Mapping[Any, Any]) -> tuple[float, ...]:
    macs, moved, sides = _work(conv)
    time_ms = conv.get("latency.avg_time") or nan
    return macs, macs / moved if moved else nan, macs / time_ms, moved / time_ms, *sides


def _work(conv: Mapping[Any, Any]) -> tuple[float, float, tuple[float, float, float]]:
    """Multiply-adds, bytes moved, and M, N, K."""
    macs = conv.get("macs", nan)
    ends = [Activation(conv[side][0]) for side in ("Inputs", "Outputs") if conv[side]]
    if len(ends) < 2 or any(len(end.shape) < _MIN_RANK or min(end.shape) < 0 for end in ends):
        # What an ONNX file says of the layer holds without the sizes of its own tensors.
        return macs, conv["total_footprint_bytes"], (nan, nan, nan)
    source, target = ends
    batch, channels, *_ = source.shape
    _, maps, *places = target.shape
    rows, kernel = batch * prod(places), conv.get("attr.kernel")
    depth = channels * prod(kernel) / conv["attr.groups"] if isinstance(kernel, tuple) else macs / (rows * maps)
    weights = conv["weights_size"] if isinstance(conv.get("Weights"), dict) else maps * depth * source.data_size
    return rows * maps * depth, source.size_bytes + weights + target.size_bytes, (rows, maps, depth)
