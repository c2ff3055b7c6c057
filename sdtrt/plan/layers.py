"""The plan: the layers of an engine and the cost of each, as a versioned JSON file.

Engines and the readers of `sdtrt.readers` write it, analysis reads it, and neither knows the other. An unknown figure
is None, never 0; layers are joined to ONNX nodes by name (`sdtrt.costs.join`), and `notes` list what could not be
joined or was left out.
"""

from __future__ import annotations

import json
from math import prod
from pathlib import Path
from statistics import median
from typing import Annotated, Literal, get_args

from pydantic import Field, JsonValue, NonNegativeInt

from sdtrt.errors import PlanError
from sdtrt.system.json_records import Record, read

# 1: first version. 2: tensors with shape and type, node costs, recorded timings, metadata and notes.
FORMAT_VERSION = 2

Kind = Literal["conv", "gemm", "attention", "norm", "pointwise", "reformat", "copy", "shape", "other"]
KINDS: tuple[Kind, ...] = get_args(Kind)
# Thirty thousand years: a larger figure is no time, and a few of them would overflow in a sum.
LONGEST_MS = 1e15
Milliseconds = Annotated[float, Field(ge=0, le=LONGEST_MS, allow_inf_nan=False)]

# Bits of one element. The size of any other type is unknown.
DTYPE_BITS: dict[str, int] = {
    **dict.fromkeys(("float64", "int64", "uint64", "complex64"), 64),
    **dict.fromkeys(("float32", "int32", "uint32"), 32),
    **dict.fromkeys(("float16", "bfloat16", "int16", "uint16"), 16),
    **dict.fromkeys(("float8", "float8_e4m3fn", "float8_e5m2", "float8_e8m0", "int8", "uint8", "bool"), 8),
    **dict.fromkeys(("int4", "uint4", "float4"), 4),
    **dict.fromkeys(("int2", "uint2"), 2),
}


def base_type(name: str | None) -> str:
    """A type without its variant: "float8" for "float8_e4m3fn", "" for None."""
    return (name or "").partition("_")[0]


class NodeCost(Record):
    """The costs of one ONNX node at one shape; FLOPs count a multiply-add as two, None is unknown."""

    name: str
    op: str
    kind: Kind
    module: str
    flops: NonNegativeInt | None
    bytes_moved: NonNegativeInt | None
    weight_bytes: NonNegativeInt


class TensorInfo(Record):
    """One activation that a layer reads or writes. An unknown dimension is None.

    `dtype` is numpy's or torch's name ("float16"); `format` is the memory layout in the backend's own words.
    """

    name: str
    shape: tuple[NonNegativeInt | None, ...] | None = None
    dtype: str | None = None
    format: str | None = None

    @property
    def nbytes(self) -> int | None:
        """Bytes without padding; None when the shape or the type is unknown."""
        bits = DTYPE_BITS.get(self.dtype or "")
        if bits is None or self.shape is None:
            return None
        sizes = [size for size in self.shape if size is not None]
        return -(-prod(sizes) * bits // 8) if len(sizes) == len(self.shape) else None


class Timing(Record):
    """Times of a layer from a profiler that does not write every run: sum, mean, median, share of the sum."""

    total_ms: Milliseconds | None = None
    mean_ms: Milliseconds | None = None
    median_ms: Milliseconds | None = None
    percentage: Milliseconds | None = None


class Layer(Record):
    """One unit that the engine runs and reports: a kernel, or several.

    `nodes` are the ONNX nodes it implements and `module` the diffusers module they come from; costs are None when no
    node could be named. `times_ms` has one entry per measured run; `timing` replaces it where the runs are unknown.
    `bytes_moved` are the bytes of its inputs, outputs and weights. `attributes` are the backend's own, unchanged.
    """

    name: str
    kind: Kind
    op: str
    kernel: str | None = None
    precision: str | None = None
    inputs: tuple[TensorInfo, ...] = ()
    outputs: tuple[TensorInfo, ...] = ()
    nodes: tuple[str, ...] = ()
    module: str | None = None
    stream: int | None = None
    weight_bytes: NonNegativeInt | None = None
    bytes_moved: NonNegativeInt | None = None
    flops: NonNegativeInt | None = None
    times_ms: tuple[Milliseconds, ...] | None = None
    timing: Timing | None = None
    attributes: dict[str, JsonValue] = {}

    @property
    def time_ms(self) -> float | None:
        """Median time of one run, the mean where only that was recorded, or None when it was not measured."""
        if self.times_ms:
            return median(self.times_ms)
        if self.timing is None:
            return None
        return self.timing.mean_ms if self.timing.median_ms is None else self.timing.median_ms

    @property
    def io_bytes(self) -> int | None:
        """Bytes of all inputs and outputs, each tensor once; None when one is unknown or none is named."""
        tensors = {t.name: t.nbytes for t in (*self.inputs, *self.outputs)}
        known = [size for size in tensors.values() if size is not None]
        return sum(known) if tensors and len(known) == len(tensors) else None


class Plan(Record):
    """All layers of one engine at one shape, with device and versions.

    `sizes` are those of the symbols ("B", "H"), `shapes` those of the inputs of the run. `nodes` are the ONNX nodes
    that the layers were joined to. `metadata` holds device, build and run as the backend's files describe them.
    """

    format: int = FORMAT_VERSION
    component: str
    backend: str
    backend_version: str | None
    device: str | None
    precision: str | None
    sizes: dict[str, int] = {}
    shapes: dict[str, tuple[NonNegativeInt, ...]] = {}
    inputs: tuple[TensorInfo, ...] = ()
    outputs: tuple[TensorInfo, ...] = ()
    layers: tuple[Layer, ...]
    runs: NonNegativeInt | None = None
    wall_times_ms: tuple[Milliseconds, ...] | None = None
    nodes: tuple[NodeCost, ...] = ()
    total_flops: NonNegativeInt | None = None
    total_weight_bytes: NonNegativeInt | None = None
    metadata: dict[str, dict[str, JsonValue]] = {}
    notes: tuple[str, ...] = ()

    @property
    def wall_ms(self) -> float | None:
        """Median wall time of one run; None when it was not measured."""
        return median(self.wall_times_ms) if self.wall_times_ms else None

    def save(self, path: Path) -> None:
        """Write as JSON."""
        data = {"format": self.format, **self.model_dump(mode="json", exclude_defaults=True)}
        path.write_text(json.dumps(data, indent=1, allow_nan=False) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Plan:
        """Read a plan.json; PlanError names the file and the field that is wrong."""
        return read(path, cls, FORMAT_VERSION, PlanError, "rebuild the bundle")
