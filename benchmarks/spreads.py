"""Statistics of repeated measurements in the CPU benchmarks."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median and median absolute deviation."""
    middle = median(values)
    return {"median": middle, "mad": median(abs(v - middle) for v in values)}
