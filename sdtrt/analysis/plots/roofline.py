"""Scatter on two logarithmic axes: how fast each layer computes, against how much it computes per byte it moves."""

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from sdtrt.analysis.colors import LINE
from sdtrt.analysis.device_peaks import MATRIX_KINDS, DevicePeaks
from sdtrt.analysis.plot_support.layout import LAYERS, by_kind, finish, label, names_of, small
from sdtrt.analysis.session import Analysis
from sdtrt.plan.layers import base_type

TITLE = "Roofline"
CAPTION = (
    "Each marker is a layer, its area the time it takes. The slope is the memory's bandwidth, the levels are peaks of "
    "the units. A layer on a line cannot be faster; one far below has headroom."
)
SECTION, ORDER, WIDE = "Roofline", 1, True
LARGEST_PX = 34


def draw(analysis: Analysis) -> go.Figure:
    """One marker per layer whose work, traffic and time are known and not 0, with the peaks of its device."""
    frame = analysis.frame
    shown = frame[(frame["tflops_per_s"] > 0) & (frame["intensity_flop_per_byte"] > 0)]
    figure = go.Figure()
    if len(shown):
        known = (peaks for peaks in map(analysis.peaks_of, analysis.plans) if peaks is not None)
        for peaks in {peaks.device: peaks for peaks in known}.values():
            _lines(figure, peaks, shown)
        largest = shown["time_ms"].max()
        for kind, color, rows in by_kind(shown.sort_values("time_ms", ascending=False)):
            figure.add_scatter(
                name=kind,
                meta=LAYERS,
                mode="markers",
                x=rows["intensity_flop_per_byte"].tolist(),
                y=rows["tflops_per_s"].tolist(),
                customdata=_facts(rows),
                marker={
                    "color": color,
                    "opacity": 0.75,
                    "size": rows["time_ms"].tolist(),
                    "sizemode": "area",
                    "sizeref": 2 * largest / LARGEST_PX**2,
                    "sizemin": 2.5,
                    "line": {"width": 0.5, "color": "rgba(255,255,255,.5)"},
                },
                hovertemplate="%{customdata[1]}<br>%{x:.4g} FLOP/byte, %{y:.4g} TFLOP/s<br>%{customdata[2]}"
                "<extra></extra>",
            )
        digits = {"exponentformat": "power", "minexponent": 3}
        figure.update_layout(dragmode="zoom", legend={"itemsizing": "constant"})
        figure.update_xaxes(
            type="log", title=f"arithmetic intensity, FLOP/byte{_absent(frame, shown)}", dtick=1, **digits
        )
        figure.update_yaxes(type="log", title="achieved, TFLOP/s", dtick=1, **digits)
    return finish(figure, 560, "" if len(shown) else "No layer has a known time, work and traffic.")


def _facts(rows: pd.DataFrame) -> list[list[object]]:
    """Number, name and limit of each layer."""
    limits = [
        f"{time:.4g} ms, {bound} bound, a perfect kernel would save {saving:.4g} ms"
        if isinstance(bound, str)
        else f"{time:.4g} ms"
        for time, bound, saving in zip(rows["time_ms"], rows["bound"], rows["headroom_ms"], strict=True)
    ]
    return [[*names, limit] for names, limit in zip(names_of(rows), limits, strict=True)]


def _absent(frame: pd.DataFrame, shown: pd.DataFrame) -> str:
    """How many layers have no place here, and their share of the time."""
    number = len(frame) - len(shown)
    time = frame["time_ms"].sum()
    share = f", {100 * (1 - shown['time_ms'].sum() / time):.1f} % of the time," if time > 0 else ""
    return small(f"{number:,} layers{share} have no such figures") if number else ""


def _lines(figure: go.Figure, peaks: DevicePeaks, shown: pd.DataFrame) -> None:
    """The slope of the memory, and a level for each type that the layers shown compute in."""
    used = set(shown["precision"][shown["kind"].isin(MATRIX_KINDS)].dropna().map(base_type))
    levels = {f"{name} matrix": peak for name, peak in peaks.matrix_tflops.items() if name in used}
    if peaks.vector_tflops:
        levels["float32 vector"] = peaks.vector_tflops
    low, high = shown["intensity_flop_per_byte"].min() / 2, shown["intensity_flop_per_byte"].max() * 2
    if peaks.gb_per_s:
        low, high = min(low, 1), max(high, 2e3 * max(levels.values(), default=0) / peaks.gb_per_s)
    top = max(levels.values(), default=np.inf)
    if peaks.gb_per_s:
        end = min(high, 1e3 * top / peaks.gb_per_s)
        rates = [low * peaks.gb_per_s / 1e3, end * peaks.gb_per_s / 1e3]
        _line(figure, [low, end], rates, f"{peaks.gb_per_s:,.4g} GB/s", "bottom right", 0)
    for name, peak in levels.items():
        start = max(low, 1e3 * peak / peaks.gb_per_s) if peaks.gb_per_s else low
        _line(figure, [start, max(high, start)], [peak, peak], f"{label(name)} {peak:,.4g} TFLOP/s", "top left", 1)


def _line(figure: go.Figure, x: list[float], y: list[float], text: str, place: str, end: int) -> None:
    figure.add_scatter(
        x=x,
        y=y,
        mode="lines+text",
        line={"color": LINE, "width": 1.5},
        text=[text if end == side else "" for side in (0, 1)],
        textposition=place,
        showlegend=False,
        hovertemplate=f"{text}<extra></extra>",
    )
