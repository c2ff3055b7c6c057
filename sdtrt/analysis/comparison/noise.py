"""The uncertainty of a measured time, and the change that noise does not explain.

Times have outliers (a clock that drops, another process), so the center is the median and the spread the median
absolute deviation, MAD. For normal noise sigma = 1.4826 MAD, and the median of n runs has the standard error
1.2533 sigma / sqrt(n). From fewer than `MIN_RUNS` figures the noise is unknown, not zero.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import hypot, sqrt
from statistics import NormalDist, fmean, median

from sdtrt.plan.layers import Layer
from sdtrt.plan.sums import sum_known

MIN_RUNS = 3
SIGMA_PER_MAD = 1.4826
# When more than half of the figures are equal, as with a coarse clock, the MAD is 0 and the mean deviation replaces it.
SIGMA_PER_MEAN_DEVIATION = 1.2533
ERROR_OF_MEDIAN = 1.2533
# A MAD of n normal figures is as uncertain as a standard deviation of 0.37 n.
MAD_EFFICIENCY = 0.37
FAMILY_RISK = 0.02


@dataclass(frozen=True)
class Estimate:
    """A time with its standard error, None where that is unknown, and the number of runs that it is made of."""

    ms: float
    error_ms: float | None = None
    runs: int = 1


def estimate(times_ms: Sequence[float]) -> Estimate:
    """Median and standard error of the times of some runs, of which there is at least one."""
    center = median(times_ms)
    if len(times_ms) < MIN_RUNS:
        return Estimate(center, None, len(times_ms))
    deviations = [abs(t - center) for t in times_ms]
    sigma = SIGMA_PER_MAD * median(deviations) or SIGMA_PER_MEAN_DEVIATION * fmean(deviations)
    return Estimate(center, ERROR_OF_MEDIAN * sigma / sqrt(len(times_ms)), len(times_ms))


def layers_ms(layers: Sequence[Layer]) -> float | None:
    """Sum of the known times: 0 for no layers, None when none was timed."""
    return sum_known(x.time_ms for x in layers) if layers else 0


def layers_estimate(layers: Sequence[Layer]) -> Estimate | None:
    """The same sum with its error, or None when no layer was timed.

    Runs that were recorded for all layers are summed one by one first: what slows a whole run slows all its layers, so
    their errors do not average out.
    """
    timed = [(ms, x.times_ms or ()) for x in layers if (ms := x.time_ms) is not None]
    if not timed:
        return None
    center, runs = sum(ms for ms, _ in timed), [times for _, times in timed]
    if len({len(times) for times in runs}) == 1 and runs[0]:
        whole = estimate([sum(times) for times in zip(*runs, strict=True)])
        return Estimate(center, whole.error_ms, whole.runs)
    parts = [estimate(times) if times else Estimate(ms) for ms, times in timed]
    errors = [part.error_ms for part in parts if part.error_ms is not None]
    return Estimate(center, hypot(*errors) if len(errors) == len(parts) else None, min(part.runs for part in parts))


def change_error_ms(a: Estimate, b: Estimate) -> float | None:
    """Standard error of `b - a`; None when it is unknown."""
    return None if a.error_ms is None or b.error_ms is None else hypot(a.error_ms, b.error_ms)


def threshold(sigmas: float, a: Estimate, b: Estimate, tests: int = 1) -> float:
    """Standard errors that a change must exceed, so that noise alone is as rare as a normal variable beyond `sigmas`.

    The fewer runs there are, the larger it is (the expansion of Student's t in Abramowitz and Stegun, 26.7.5).

    Args:
        sigmas: the limit for a single test of many runs.
        a: the baseline's time.
        b: the candidate's time.
        tests: tests that are made at once; noise alone fails no more than `FAMILY_RISK` of such sets.
    """
    normal = NormalDist()
    z = -normal.inv_cdf(max(min(normal.cdf(-sigmas), FAMILY_RISK / max(tests, 1)), 1e-300))
    freedom = max(MAD_EFFICIENCY * (a.runs + b.runs - 2), 1)
    return z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
