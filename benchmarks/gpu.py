"""Helpers of the GPU benchmarks: the card's properties, the time of one call, and the spread of several."""

from __future__ import annotations

import platform
import statistics
import subprocess
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

QUERY = "name,driver_version,clocks.sm,clocks.max.sm,memory.total,temperature.gpu"


def machine(packages: Sequence[str]) -> dict[str, Any]:
    """Card, driver, clocks, and the versions of those packages that are installed."""
    done = subprocess.run(
        ["nvidia-smi", f"--query-gpu={QUERY}", "--format=csv,noheader"], capture_output=True, text=True, check=False
    )
    versions = {}
    for package in packages:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return {
        "gpu": dict(zip(QUERY.split(","), next(iter(done.stdout.splitlines()), "").split(", "), strict=False)),
        "versions": versions,
        "python": platform.python_version(),
    }


def event_ms(call: Callable[[], Any]) -> float:
    """Milliseconds of one call by CUDA events, on an otherwise idle GPU."""
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    torch.cuda.synchronize()
    start.record()
    call()
    end.record()
    torch.cuda.synchronize()
    return float(start.elapsed_time(end))


def middle_and_spread(times: Sequence[float]) -> tuple[float, float]:
    """Median, and half the interquartile range."""
    low, middle, high = statistics.quantiles(times, n=4)
    return middle, (high - low) / 2
