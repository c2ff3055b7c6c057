"""What `sdtrt bench` measured, as a JSON file, with every single time, so that other figures can be made of them."""

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
    """A benchmark could not be run or read, or its limits were not met."""

    slug = "bench"


class Latency(Record):
    """Seconds of each call from prompt to images; percentiles are times that were measured, by the nearest rank."""

    p50_s: PositiveFloat
    p90_s: PositiveFloat
    p99_s: PositiveFloat
    calls_s: tuple[PositiveFloat, ...]

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Latency:
        """The percentiles of some calls; with fewer than 100 of them the 99th is the longest."""
        ranked = sorted(seconds)
        at = {p: ranked[math.ceil(p / 100 * len(ranked)) - 1] for p in (50, 90, 99)}
        return cls(p50_s=at[50], p90_s=at[90], p99_s=at[99], calls_s=tuple(seconds))


class Served(Record):
    """One pipeline in one case: `rounds_s` are the times of whole rounds, in which each caller makes one call."""

    latency: Latency
    rounds_s: tuple[PositiveFloat, ...]
    images_per_s: PositiveFloat


class Ratio(Record):
    """How many times as fast as eager, round by round: median, median absolute deviation, least and largest."""

    median: PositiveFloat
    mad: NonNegativeFloat
    least: PositiveFloat
    largest: PositiveFloat

    @classmethod
    def of(cls, eager_s: Sequence[float], engines_s: Sequence[float]) -> Ratio:
        """From rounds that took turns."""
        ratios = [e / m for e, m in zip(eager_s, engines_s, strict=True)]
        middle = median(ratios)
        mad = median(abs(r - middle) for r in ratios)
        return cls(median=middle, mad=mad, least=min(ratios), largest=max(ratios))


class Case(Record):
    """One size, batch and number of callers. `image` is where the time of one call went, measured apart."""

    height: PositiveInt
    width: PositiveInt
    batch: PositiveInt
    callers: PositiveInt
    engines: Served
    eager: Served | None = None
    ratio: Ratio | None = None
    image: ImageRun

    @property
    def name(self) -> str:
        """For tables and errors."""
        callers = f", {self.callers} callers" if self.callers > 1 else ""
        return f"{self.width}x{self.height}, batch {self.batch}{callers}"


class Start(Record):
    """A fresh process: seconds from its start until it was so far, and the most memory it had after all cases.

    `gpu_bytes` is what the GPU held more than before the process, by NVML: other processes must leave it alone.
    """

    loaded_s: PositiveFloat
    first_image_s: PositiveFloat
    second_call_s: PositiveFloat
    resident_bytes: NonNegativeInt | None
    gpu_bytes: int | None


class Bench(Record):
    """One benchmark of a bundle. `machine` is `sdtrt.system.env.describe()`, `clocks` what NVML told meanwhile."""

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
    starts: dict[str, tuple[Start, ...]]
    cases: tuple[Case, ...]

    def save(self, path: Path) -> None:
        """Write as JSON; folders are made."""
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, self.model_dump_json(indent=1) + "\n")

    @classmethod
    def load(cls, path: Path) -> Bench:
        """Read; BenchError names the file and the field that is wrong."""
        return read(path, cls, FORMAT_VERSION, BenchError, "record one: sdtrt bench BUNDLE --out FILE")
