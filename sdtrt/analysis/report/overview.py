"""The figures at the head of the page, and the coverage of the analysis."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from sdtrt.analysis.device_peaks import DevicePeaks
from sdtrt.analysis.report.layer_data import elide
from sdtrt.analysis.session import Analysis
from sdtrt.analysis.summary import number


@dataclass(frozen=True)
class Tile:
    """One figure, what it is, and a line on where it comes from."""

    label: str
    value: str
    note: str = ""


@dataclass(frozen=True)
class Coverage:
    """For how many layers, and for what share of the layer time, something is known."""

    layers: int
    of: int
    time_pct: float | None


def devices(analysis: Analysis) -> dict[str, dict[str, str]]:
    """Peak rates of each device that an engine ran on."""
    return {elide(plan.device or "Unknown device", 80): _facts(analysis.peaks_of(plan)) for plan in analysis.plans}


def _facts(peaks: DevicePeaks | None) -> dict[str, str]:
    if peaks is None:
        return {"Peaks": "unknown: the device is neither measured nor listed"}
    facts = {"Source": elide(peaks.source), "Memory": number(peaks.gb_per_s, "GB/s")}
    facts |= {f"Matrix {elide(name, 40)}": number(peak, "TFLOP/s") for name, peak in peaks.matrix_tflops.items()}
    return {**facts, "Vector": number(peaks.vector_tflops, "TFLOP/s"), "Launch": number(peaks.launch_us, "µs")}


def tiles(analysis: Analysis) -> list[Tile]:
    """The figures to read first."""
    budget = analysis.budget
    each_ms = None if budget.total_ms is None else budget.total_ms / budget.images
    source = "assumed calls" if budget.assumed else "measured"
    source += f", {budget.images} at once" if budget.images > 1 else ""
    image = budget.whole == "image"
    whole = "One image" if image else "One run" if len(budget.rows) == 1 else "One run of each engine"
    known = [row for row in budget.rows if row.share_pct is not None]
    largest = max(known, key=lambda row: row.share_pct or 0, default=None)
    found = [Tile(whole, number(each_ms, "ms"), f"{budget.steps} steps, {source}" if image else "median")]
    if largest is not None and len(budget.rows) > 1:
        found.append(Tile("Largest stage", number(largest.share_pct, "%"), elide(largest.stage, 60)))
    return [*found, *_layer_tiles(analysis), _findings_tile(analysis)]


def _layer_tiles(analysis: Analysis) -> list[Tile]:
    """Figures over all layers, weighted by the calls of their engine."""
    frame, budget = analysis.frame, analysis.budget
    calls = frame["component"].map({name: budget.per_image(name) for name in frame["component"].unique()})
    times = (frame["time_ms"] * calls).astype("float64")
    whole = float(np.nansum(times))
    if not whole:
        return [Tile("Headroom", "unknown", "no layer was timed"), Tile("Attributed", "unknown", "no layer was timed")]
    saving = float(np.nansum((frame["headroom_ms"] * calls).astype("float64")))
    limited = float(np.nansum(times[frame["headroom_ms"].notna()]))
    named = float(np.nansum(times[frame["module"].notna()]))
    note = f"perfect kernels would save {100 * saving / whole:.3g} % of the layer time"
    return [
        Tile("Headroom", number(saving, "ms") if limited else "unknown", note if limited else "no peaks are known"),
        Tile("Attributed", f"{100 * named / whole:.4g} %", "of the layer time has a module"),
    ]


def _findings_tile(analysis: Analysis) -> Tile:
    counts = Counter(finding.severity for finding in analysis.findings)
    split = ", ".join(f"{counts[severity]} {severity}" for severity in ("high", "medium", "low") if counts[severity])
    return Tile("Findings", f"{counts.total():,}", split or "no rule found anything")


def coverage(frame: pd.DataFrame) -> dict[str, Coverage]:
    """What is known of one engine's layers, by what it is."""
    columns: Mapping[str, str] = {
        "module": "Attributed to a module",
        "time_ms": "Timed",
        "flops": "Operations known",
        "bytes_moved": "Bytes known",
        "precision": "Precision known",
        "ideal_ms": "Limit known",
    }
    whole = frame["time_ms"].sum()
    rows = {}
    for column, what in columns.items():
        known = frame[column].notna()
        share = 100 * frame.loc[known, "time_ms"].sum() / whole if whole > 0 and column != "time_ms" else None
        rows[what] = Coverage(int(known.sum()), len(frame), share)
    return rows
