"""The JSON file of `sdtrt bench`: every measured time, percentiles and ratios, and the machine they are from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from sdtrt.errors import SdtrtError
from sdtrt.plan.image_timing import ImageRun
from sdtrt.system.files import write_text
from sdtrt.system.json_records import Record, read

FORMAT_VERSION = 1


class BenchError(SdtrtError):
    """A benchmark cannot be run or read, or a limit is exceeded."""

    slug = "bench"


class Latency(Record):
    """Seconds of each call from prompt to images; percentiles are by nearest rank, so each is a measured time."""

    p50_s: PositiveFloat
    p90_s: PositiveFloat
    p99_s: PositiveFloat
    calls_s: tuple[PositiveFloat, ...]

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Latency:
        """Percentiles of the calls; with fewer than 100 calls, p99 is the longest."""
        ranked = sorted(seconds)
        at = {p: ranked[math.ceil(p / 100 * len(ranked)) - 1] for p in (50, 90, 99)}
        return cls(p50_s=at[50], p90_s=at[90], p99_s=at[99], calls_s=tuple(seconds))


class PipelineTimes(Record):
    """Times of one pipeline in one case; `rounds_s` are whole rounds, in which each caller makes one call."""

    latency: Latency
    rounds_s: tuple[PositiveFloat, ...]
    images_per_s: PositiveFloat


class Ratio(Record):
    """Speedup over eager, round by round: median, median absolute deviation, minimum and maximum."""

    median: PositiveFloat
    mad: NonNegativeFloat
    least: PositiveFloat
    largest: PositiveFloat

    @classmethod
    def of(cls, eager_s: Sequence[float], engines_s: Sequence[float]) -> Ratio:
        """From the seconds of alternating rounds."""
        ratios = [eager / engines for eager, engines in zip(eager_s, engines_s, strict=True)]
        center = median(ratios)
        mad = median(abs(ratio - center) for ratio in ratios)
        return cls(median=center, mad=mad, least=min(ratios), largest=max(ratios))


class Case(Record):
    """One size, batch and number of callers; `image` has the time of each engine in one call, measured apart."""

    height: PositiveInt
    width: PositiveInt
    batch: PositiveInt
    callers: PositiveInt
    engines: PipelineTimes
    eager: PipelineTimes | None = None
    ratio: Ratio | None = None
    image: ImageRun

    @property
    def name(self) -> str:
        """Name in tables and errors."""
        callers = f", {self.callers} callers" if self.callers > 1 else ""
        return f"{self.width}x{self.height}, batch {self.batch}{callers}"


class ColdStart(Record):
    """A fresh process: seconds from its start to each stage, and its peak memory over all cases.

    `gpu_bytes` is the growth of the GPU's used memory by NVML, which is right only if no other process uses the GPU.
    """

    loaded_s: PositiveFloat
    first_image_s: PositiveFloat
    second_call_s: PositiveFloat
    resident_bytes: NonNegativeInt | None
    gpu_bytes: int | None


class Bench(Record):
    """One benchmark of a bundle; `machine` is `env.describe()`, `clocks` are NVML's clocks during the measurement."""

    format: int = FORMAT_VERSION
    bundle: str
    model: str
    family: str
    backend: str
    backend_version: str
    precision: str
    device: str
    steps: PositiveInt
    runs: PositiveInt
    eager_dtype: str | None
    torch_threads: PositiveInt
    machine: dict[str, Any]
    load_average: float | None
    clocks: dict[str, Any]
    starts: dict[str, tuple[ColdStart, ...]]
    cases: tuple[Case, ...]

    def save(self, path: Path) -> None:
        """Write as JSON, and create the folder."""
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, self.model_dump_json(indent=1) + "\n")

    @classmethod
    def load(cls, path: Path) -> Bench:
        """Read a file; BenchError names the file and the invalid field."""
        return read(path, cls, FORMAT_VERSION, BenchError, "record one: sdtrt bench BUNDLE --out FILE")
