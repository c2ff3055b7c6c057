"""Convolutions as points: the sides of their matrix products, and efficiency against work and traffic."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd

from sdtrt.analysis.trex.engine_plan import EnginePlan
from sdtrt.analysis.trex.figures.bars import trex_base_layout
from sdtrt.analysis.trex.figures.labels import escaped, title_text
from sdtrt.analysis.trex.figures.menu import menu, shown

if TYPE_CHECKING:
    import plotly.graph_objects as go

_LARGEST_PX, _DEFAULT_PX = 18, 10
_TIME, _BYTES = "latency.avg_time", "total_footprint_bytes"
_AI, _COMPUTE, _MEMORY = "attr.arithmetic_intensity", "attr.compute_efficiency", "attr.memory_efficiency"


def points(df: pd.DataFrame, title: str, axes: tuple[str, ...], color: str, size: str | None) -> go.Figure:
    """A scatter over two or three columns; `color` and `size` are columns too."""
    import plotly.graph_objects as go

    columns = [*axes, color, *([size] if size else [])]
    df = df.dropna(subset=[column for column in columns if column in df.columns])
    if len(df) == 0 or any(column not in df.columns for column in columns):
        return trex_base_layout(go.Figure(layout_title_text=title_text(title)))
    marker: dict[str, Any] = {"color": df[color], "colorbar": {"title": escaped(color)}, "opacity": 0.7}
    marker |= {"size": _DEFAULT_PX} if size is None else _sized(df[size])
    names = [escaped(name) for name in df["Name"]]
    parts = dict(zip("xyz", (df[axis] for axis in axes), strict=False))
    hover = "".join(f"{escaped(axis)}: %{{{letter}}}<br>" for letter, axis in zip("xyz", axes, strict=False))
    trace = go.Scatter if len(axes) == 2 else go.Scatter3d
    fig = go.Figure(trace(**parts, mode="markers", marker=marker, text=names, hovertemplate=f"%{{text}}<br>{hover}"))
    titles = {f"{letter}axis": {"title": {"text": escaped(axis)}} for letter, axis in zip("xyz", axes, strict=False)}
    # From a little further away than by default, so that the titles of the axes are in the picture.
    camera = {"camera": {"eye": {"x": 1.6, "y": 1.6, "z": 1.2}}}
    fig.update_layout(titles if len(axes) == 2 else {"scene": titles | camera})
    fig.update_traces(name="")
    return trex_base_layout(fig).update_layout(title={"text": title_text(title), "x": 0.5})


def _sized(values: pd.Series) -> dict[str, Any]:
    """Areas in proportion to the values."""
    largest = float(values.max()) or 1
    return {"size": values, "sizemode": "area", "sizeref": 2 * largest / _LARGEST_PX**2, "sizemin": 3}


def report_card_gemm_MNK(plan: EnginePlan, do_show: bool = True) -> go.Figure | None:  # noqa: N802
    """M, N and K of the matrix products that convolutions are, in three dimensions."""
    convs = plan.get_layers_by_type("Convolution")
    colors = {"mean time": _TIME, "arithmetic intensity": _AI, "compute efficiency": _COMPUTE}
    colors["memory efficiency"] = _MEMORY
    titles = {f"Implicit GEMM MxNxK color={text}; size=mean time": color for text, color in colors.items()}
    axes = ("attr.M", "attr.N", "attr.K")
    return shown(menu({title: points(convs, title, axes, color, _TIME) for title, color in titles.items()}), do_show)


def report_card_gemm_MNK_scatter(plan: EnginePlan, do_show: bool = True) -> go.Figure | None:  # noqa: N802
    """M, N and K against latency."""
    convs = plan.get_layers_by_type("Convolution")
    titles = {f"{side} vs. Latency (color = footprint)": f"attr.{side}" for side in "MNK"}
    return shown(menu({t: points(convs, t, (side, _TIME), _BYTES, None) for t, side in titles.items()}), do_show)


def report_card_efficiency_vs_latency_3d(plan: EnginePlan, do_show: bool = True) -> go.Figure | None:
    """Compute efficiency, memory efficiency and arithmetic intensity; the size is the latency."""
    convs = plan.get_layers_by_type("Convolution")
    title = "Compute-efficiency vs Memory-efficiency vs Latency"
    return shown(points(convs, title, (_COMPUTE, _MEMORY, _AI), _BYTES, _TIME), do_show)


def report_card_perf_scatter(plan: EnginePlan, do_show: bool = True) -> go.Figure | None:
    """Efficiency, intensity, work and traffic against each other; the color is the latency."""
    convs = plan.get_layers_by_type("Convolution")
    axes = {
        "Compute-efficiency vs. FMAs (size = footprint)": (_COMPUTE, "attr.macs", _BYTES),
        "Memory-efficiency vs. footprint (size = FMAs)": (_MEMORY, _BYTES, "attr.macs"),
        "Compute-efficiency vs. memory-efficiency (size = AI)": (_COMPUTE, _MEMORY, _AI),
        "Memory footprint vs FMAs (size = AI)": (_BYTES, "attr.macs", _AI),
        "Arithmetic-intensity vs. compute-efficiency (size = memory-efficiency)": (_AI, _COMPUTE, _MEMORY),
        "Arithmetic-intensity vs. memory-efficiency (size = compute-efficiency)": (_AI, _MEMORY, _COMPUTE),
    }
    return shown(menu({t: points(convs, t, (x, y), _TIME, size) for t, (x, y, size) in axes.items()}), do_show)
