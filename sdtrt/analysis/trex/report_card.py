"""TREx's report cards without widgets.

Where TREx returns a dict of functions, so does this: `report_card_perf_overview(plan)["Latency per layer (ms)"]()` is
a figure. Where TREx shows a widget to choose from, this shows one figure with a menu in it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from sdtrt.analysis.trex.colors import layer_colormap, precision_colormap
from sdtrt.analysis.trex.df_preprocessing import clean_for_display
from sdtrt.analysis.trex.engine_plan import EnginePlan
from sdtrt.analysis.trex.figures.labels import color_of, escaped, title_text
from sdtrt.analysis.trex.figures.menu import menu, shown
from sdtrt.analysis.trex.figures.scatter import points
from sdtrt.analysis.trex.graphing import layer_type_formatter, render_dot, to_dot
from sdtrt.analysis.trex.misc import group_count, group_sum_attr
from sdtrt.analysis.trex.notebook import display_df, write
from sdtrt.analysis.trex.plotting import plotly_bar2, plotly_hist, plotly_pie2, trex_base_layout
from sdtrt.readers.documents import parse

if TYPE_CHECKING:
    import plotly.graph_objects as go

__all__ = [
    "layer_latency_sunburst",
    "plot_engine_timings",
    "report_card_convolutions_overview",
    "report_card_convolutions_overview_widget",
    "report_card_draw_plan_graph",
    "report_card_draw_plan_graph_extended",
    "report_card_efficiency_vs_latency_3d",
    "report_card_gemm_MNK",
    "report_card_gemm_MNK_scatter",
    "report_card_memory_footprint",
    "report_card_memory_footprint_widget",
    "report_card_perf_overview",
    "report_card_perf_overview_widget",
    "report_card_perf_scatter",
    "report_card_pointwise_lint",
    "report_card_reformat_overview",
    "report_card_table_view",
]

Cards = dict[str, "go.Figure"]
_TIME, _SHARE, _BYTES = "latency.avg_time", "latency.pct_time", "total_footprint_bytes"
_AI, _COMPUTE, _MEMORY = "attr.arithmetic_intensity", "attr.compute_efficiency", "attr.memory_efficiency"


def report_card_perf_overview(plan: EnginePlan) -> Cards:
    """Latency per layer and type, distribution, precisions: a figure for each title."""
    df = plan.df
    by_type = df.groupby("type")[[_SHARE, _TIME]].sum(min_count=1).reset_index()
    layers = {"names_col": "Name", "xaxis_title": "Layer"}
    types = {"names_col": "type", "orientation": "h", "show_axis_ticks": (True, True)}
    kinds, precisions = {"color": "type", "colormap": layer_colormap}, {"colormap": precision_colormap}
    bars: dict[str, tuple[pd.DataFrame, str, dict[str, Any]]] = {
        "Latency per layer (%)": (df, _SHARE, layers | kinds),
        "Latency per layer (ms)": (df, _TIME, layers | kinds),
        "Precision per layer": (df, _TIME, layers | precisions | {"color": "precision"}),
        "Output precision per layer": (df, _TIME, layers | precisions | {"color": "output_precision"}),
        "Count per layer type": (group_count(df, "type"), "count", types | kinds),
        "Latency per layer type (ms)": (by_type, _TIME, types | kinds),
        "Latency per layer type (%)": (by_type, _SHARE, types | kinds),
    }
    cards = {
        title: plotly_bar2(table, title, values, do_show=False, **more) for title, (table, values, more) in bars.items()
    }
    spread = "Layer latency distribution"
    cards[spread] = plotly_hist(df, spread, _SHARE, "Latency (%)", "type", layer_colormap, do_show=False)
    rings = "Precision per layer type"
    cards[rings] = _sunburst(df.assign(count=1), rings, "precision", "count")
    pies = [
        (group_count(df, "precision"), "Layer Count By Precision", "count", "precision"),
        (group_sum_attr(df, "precision", _SHARE), "% Latency By Precision", _SHARE, "precision"),
    ]
    cards["Precision rollup"] = plotly_pie2("Precision rollup", pies, colormap=precision_colormap, do_show=False)
    return cards


def report_card_perf_overview_widget(plan: EnginePlan, do_show: bool = True) -> go.Figure | None:
    """`report_card_perf_overview` as one figure with a menu."""
    return shown(menu(report_card_perf_overview(plan)), do_show)


def report_card_convolutions_overview(convs: pd.DataFrame) -> Cards:
    """Bars over the convolutions of `plan.get_layers_by_type("Convolution")`: values by name, and what colors them."""
    macs, per = "attr.macs", "Latency per convolution"
    bars = {
        f"{per} (color = precision)": (_SHARE, "precision"),
        f"{per} (color = FMAs)": (_SHARE, macs),
        f"{per} (color = data size)": (_SHARE, _BYTES),
        f"{per} (color = arithmetic intensity)": (_SHARE, _AI),
        f"{per} (color = compute efficiency)": (_SHARE, _COMPUTE),
        f"{per} (color = group size)": (_SHARE, "attr.groups"),
        f"{per} (color = kernel size)": (_SHARE, "attr.kernel"),
        "Data footprints": (_BYTES, _SHARE),
        "Fused Multiply-Accumulate (FMAs)": (macs, _SHARE),
        "Arithmetic intensity (color = latency)": (_AI, _COMPUTE),
        "Arithmetic intensity (color = footprint)": (_AI, _MEMORY),
        "Compute efficiency (color = latency)": (_COMPUTE, _SHARE),
        "Memory efficiency (color = latency)": (_MEMORY, _SHARE),
    }
    maps = {"precision": precision_colormap}
    return {
        title: plotly_bar2(convs, title, values, "Name", color=color, colormap=maps.get(color), do_show=False)
        for title, (values, color) in bars.items()
        if {values, color} <= set(convs.columns)
    }


def report_card_convolutions_overview_widget(convs: pd.DataFrame, do_show: bool = True) -> go.Figure | None:
    """`report_card_convolutions_overview` as one figure with a menu."""
    return shown(menu(report_card_convolutions_overview(convs)), do_show)


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


def report_card_memory_footprint(plan: EnginePlan) -> Cards:
    """Weights, activations and both together, by layer and as distributions."""
    columns = {"Weights": "weights_size", "Activations": "total_io_size_bytes", "Total": "total_footprint_bytes"}
    look: dict[str, Any] = {"color": "type", "colormap": layer_colormap, "do_show": False}
    bars = {f"{name} footprint per layer": column for name, column in columns.items()}
    spread = {f"{name} footprint distribution per layer": column for name, column in columns.items()}
    return {
        **{title: plotly_bar2(plan.df, title, column, "Name", **look) for title, column in bars.items()},
        **{title: plotly_hist(plan.df, title, column, "Size (bytes)", **look) for title, column in spread.items()},
    }


def report_card_memory_footprint_widget(plan: EnginePlan, do_show: bool = True) -> go.Figure | None:
    """`report_card_memory_footprint` as one figure with a menu."""
    return shown(menu(report_card_memory_footprint(plan)), do_show)


def report_card_reformat_overview(plan: EnginePlan, do_show: bool = True) -> go.Figure | None:
    """How many Reformat layers there are and what they take, by why TensorRT added them."""
    reformats = plan.get_layers_by_type("Reformat")
    if "attr.origin" not in reformats.columns:
        reformats = reformats.assign(**{"attr.origin": "unknown"})
    origin = "attr.origin"
    tables = {
        "Reformat - Count by origin": (group_count(reformats, origin), "count"),
        "Reformat - Latency by origin": (group_sum_attr(reformats, origin, _TIME), _TIME),
        "Reformat - Percent latency by origin": (group_sum_attr(reformats, origin, _SHARE), _SHARE),
    }
    look: dict[str, Any] = {"color": origin, "orientation": "h", "show_axis_ticks": (True, True), "do_show": False}
    figures = {t: plotly_bar2(table, t, values, origin, **look) for t, (table, values) in tables.items()}
    return shown(menu(figures), do_show)


def report_card_table_view(plan: EnginePlan, layer_type: str = "All") -> None:
    """Show the table of all layers, or of one type with its share of the time."""
    if layer_type == "All":
        display_df(clean_for_display(plan.df))
        return
    df = plan.get_layers_by_type(layer_type)
    share, time_ms = df[_SHARE].sum(), df[_TIME].sum()
    write(f"{len(df)} {layer_type} layers take {share:.2f} % ({time_ms:.5f} ms) of the layer time.")
    display_df(clean_for_display(df))


def report_card_pointwise_lint(plan: EnginePlan, do_show: bool = True) -> go.Figure | None:
    """How many operations the PointWise layers fuse, and what one of them takes."""
    layers, operations = plan.get_layers_by_type("PointWise"), "attr.n_operations"
    if len(layers) == 0 or operations not in layers.columns:
        write("The engine plan does not contain pointwise layers.")
        return None
    count, times = group_count(layers, operations), group_sum_attr(layers, operations, _SHARE)
    each = times.merge(count, on=operations)
    each["per_op_latency"] = each[_SHARE] / (each["count"] * each[operations])
    charts = [
        (count, "Pointwise layers by number of operations", "count", operations),
        (times, "Latency by number of operations (%)", _SHARE, operations),
        (each, "Per op latency by number of operations", "per_op_latency", operations),
    ]
    for layer in layers[layers[operations] > 1].to_dict("records"):
        write("\n\t".join([layer["Name"], *map(str, layer.get("attr.operations") or ())]))
    return shown(plotly_pie2("Pointwise Statistics", charts, do_show=False), do_show)


def layer_latency_sunburst(df: pd.DataFrame, title: str, do_show: bool = True) -> go.Figure | None:
    """Latency of the layers inside that of their types. TREx draws how many layers there are, not their latency."""
    return shown(_sunburst(df, title, "Name", _SHARE), do_show)


def plot_engine_timings(timing_json_file: str | Path, do_show: bool = True) -> go.Figure | None:
    """The latency of every run that trtexec recorded with `--exportTimes`."""
    import plotly.graph_objects as go

    records = parse(Path(timing_json_file)).data
    latencies = [run.get("latencyMs") for run in records if isinstance(run, dict)] if isinstance(records, list) else []
    fig = trex_base_layout(go.Figure(go.Scatter(y=latencies, mode="markers")))
    axes = {"xaxis_title": "Timing Samples", "yaxis_title": "Latency (ms)"}
    return shown(fig.update_layout(title={"text": "Engine Timing Samples", "x": 0.5}, **axes), do_show)


def report_card_draw_plan_graph(plan: EnginePlan, engine_name: str, **options: Any) -> Path:
    """Draw the plan as `engine_name`.svg, colored by type; `options` are those of `to_dot`."""
    return render_dot(to_dot(plan, **{"formatter": layer_type_formatter, **options}), engine_name, "svg")


report_card_draw_plan_graph_extended = report_card_draw_plan_graph


def _sunburst(df: pd.DataFrame, title: str, leaf: str, values: str) -> go.Figure:
    """Rings: types inside, precisions or layers outside, areas in proportion to the sums of a column."""
    import plotly.express as px

    df = df.dropna(subset=[values])
    paths = [df[column].map(escaped) for column in ("type", leaf)]
    fig = px.sunburst(df, path=paths, values=values, title=title_text(title))
    (rings,) = fig.data
    colors = [
        color_of(layer_colormap | precision_colormap, label if leaf == "precision" else parent or label)
        for label, parent in zip(rings.labels, rings.parents, strict=True)
    ]
    return fig.update_traces(marker_colors=colors, hovertemplate=None).update_layout(title_x=0.5)
