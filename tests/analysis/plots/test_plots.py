"""Every plot in the folder draws every kind of plan, without a tag from a file in any label."""

from __future__ import annotations

import json
import re

import plotly.graph_objects as go
import pytest

from sdtrt import registry
from sdtrt.analysis.colors import KIND_COLORS, NEUTRAL, PRECISION_COLORS, precision_color
from sdtrt.analysis.device_peaks import DevicePeaks
from sdtrt.analysis.plot_support.layout import NAME_CHARS, label
from sdtrt.analysis.report.html import SECTIONS
from sdtrt.analysis.session import Analysis
from sdtrt.plan.layers import KINDS

PLOTS = "sdtrt.analysis.plots"
NAMES = registry.names(PLOTS)


def draw(name, plans) -> go.Figure:
    return registry.load(PLOTS, name).draw(Analysis(tuple(plans)))


def test_the_plots_are_found():
    assert set(NAMES) >= {"time_by_kind", "time_by_module", "top_layers", "roofline", "precision_pies"}
    for plot in (registry.load(PLOTS, name) for name in NAMES):
        assert plot.TITLE
        assert plot.CAPTION.endswith(".")
        assert plot.SECTION in SECTIONS


def test_no_two_plots_have_the_same_place():
    places = [(plot.SECTION, plot.ORDER) for plot in (registry.load(PLOTS, name) for name in NAMES)]
    assert len(set(places)) == len(places)


def test_every_kind_has_one_color_of_its_own():
    assert tuple(KIND_COLORS) == KINDS
    assert len({*KIND_COLORS.values(), NEUTRAL}) == len(KINDS) + 1


@pytest.mark.parametrize("name", NAMES)
def test_draws_layers_with_times(name, plans):
    figure = draw(name, plans)
    assert len(figure.data) > 0
    assert figure.layout.height > 120


@pytest.mark.parametrize("name", NAMES)
def test_says_what_is_missing(name, untimed):
    bare = tuple(part.model_copy(update={"weight_bytes": None}) for part in untimed.layers)
    for plans in ([], [untimed.model_copy(update={"layers": bare})], [untimed.model_copy(update={"layers": ()})]):
        figure = draw(name, plans)
        if figure.data:
            assert name == "precision_pies", "layers can be counted without times"
        else:
            assert re.match(r"(No layer|The size of no layer|There are no layers)", figure.layout.annotations[0].text)


@pytest.mark.parametrize("name", NAMES)
def test_labels_hold_no_markup(name, plans, unet):
    hostile = unet.model_copy(update={"component": "<a href='javascript:alert(3)'>x</a>"})
    text = json.dumps(json.loads(draw(name, [*plans, hostile]).to_json()))
    for tag in ("<img", "<b>", "<a ", "</script", "&lt;i&gt;"):
        assert tag not in text.replace("&amp;lt;i&amp;gt;", "")


def test_colors_mean_the_same_in_every_plot(plans):
    for name in ("time_by_kind", "top_layers", "latency_per_layer", "efficiency"):
        assert {bar.name: bar.marker.color for bar in draw(name, plans).data}.items() <= KIND_COLORS.items()
    assert set(draw("time_by_module", plans).data[0].marker.colors) <= {*KIND_COLORS.values(), NEUTRAL}


@pytest.mark.parametrize(
    ("name", "base"), [("float8_e4m3fn", "float8"), ("uint8", "int8"), ("fancy", "unknown"), ("bfloat16", "bfloat16")]
)
def test_a_variant_of_a_type_has_the_color_of_the_type(name, base):
    assert precision_color(name) == PRECISION_COLORS[base]


@pytest.mark.parametrize("name", ["time_by_kind", "time_by_precision"])
def test_shares_add_up_to_the_whole(name, plans):
    assert sum(x for bar in draw(name, plans).data for x in bar.x) == pytest.approx(100)


def test_modules_nest_and_add_up(unet, detailed):
    plans = [unet, detailed.model_copy(update={"component": "other"})]
    tree = draw("time_by_module", plans).data[0]
    assert dict(zip(tree.labels, tree.values, strict=True))["all engines"] == pytest.approx(8.0)
    for node, value in zip(tree.ids, tree.values, strict=True):
        children = [v for parent, v in zip(tree.parents, tree.values, strict=True) if parent == node]
        assert sum(children) <= value * (1 + 1e-9)


def test_one_engine_is_the_root_of_its_modules(plans):
    tree = draw("time_by_module", plans).data[0]
    times = dict(zip(tree.labels, tree.values, strict=True))
    assert (tree.labels[0], tree.parents[0], tree.values[0]) == ("unet", "", pytest.approx(4.0))
    assert times["attentions.1"] == pytest.approx(1.75)
    assert times["(no module)"] == pytest.approx(0.125)


def test_without_modules_kinds_and_layers_take_their_place(unet):
    bare = unet.model_copy(update={"layers": tuple(p.model_copy(update={"module": None}) for p in unet.layers)})
    tree = draw("time_by_module", [bare]).data[0]
    parents = dict(
        zip(tree.labels, (dict(zip(tree.ids, tree.labels, strict=True)).get(i) for i in tree.parents), strict=True)
    )
    assert (parents["/conv_in/Conv"], parents["conv"]) == ("conv", "unet")
    assert draw("headroom_by_module", [bare]).layout.annotations[0].text == "norm|1"


def test_every_timed_layer_has_a_bar_at_its_place(plans):
    places = {x: y for bar in draw("latency_per_layer", plans).data for x, y in zip(bar.x, bar.y, strict=True)}
    assert places == {8: 2.0, 9: 1.0, 10: 0.5, 11: 0.25, 12: 0.125, 13: 0.125}


def test_points_and_bars_know_their_layer(plans):
    frame = Analysis(tuple(plans)).frame
    for name in ("top_layers", "latency_per_layer", "roofline", "footprint_per_layer"):
        traces = [trace for trace in draw(name, plans).data if trace.meta == "layers"]
        assert traces
        for trace in traces:
            for index, text, *_ in trace.customdata:
                assert text in (label(frame["name"][index], NAME_CHARS), label(frame["name"][index], 90))


def test_histograms_count_every_layer_once(plans, unet):
    counts, sums = draw("latency_histogram", plans).data
    assert sum(counts.y) == 6
    assert sum(sums.y) == pytest.approx(4.0)
    edges = unet.model_copy(update={"layers": tuple(p.model_copy(update={"times_ms": (1.0,)}) for p in unet.layers)})
    assert draw("latency_histogram", [edges]).data[0].y == (7,)


def test_the_roofline_has_the_peaks_of_the_device(detailed):
    figure = draw("roofline", [detailed])
    texts = [text for line in figure.data if line.mode == "lines+text" for text in line.text if text]
    assert texts == ["4,800 GB/s", "float16 matrix 989.4 TFLOP/s", "float32 vector 66.9 TFLOP/s"], (
        "no product in float32"
    )
    ridge = figure.data[0].x[1]
    assert ridge == pytest.approx(989.4e3 / 4800)
    assert "5 layers, 25.0 % of the time" in figure.layout.xaxis.title.text, "which compute nothing or are not known"


@pytest.mark.parametrize("precision", ["float8", "float8_e4m3fn"])
def test_a_variant_of_a_type_has_the_ceiling_of_the_type(precision, detailed):
    layers = [x.model_copy(update={"precision": precision}) for x in detailed.layers]
    plan = detailed.model_copy(update={"layers": tuple(layers)})
    texts = [text for line in draw("roofline", [plan]).data if line.mode == "lines+text" for text in line.text]
    assert "float8 matrix 1,979 TFLOP/s" in texts
    frame = Analysis((plan,)).frame
    conv = frame[(frame["kind"] == "conv") & frame["flops"].gt(0) & frame["time_ms"].gt(0)].iloc[0]
    assert conv["pct_peak_compute"] == pytest.approx(100 * conv["tflops_per_s"] / 1978.9)


def test_the_roofline_of_an_unknown_device_has_layers_only(unet):
    figure = draw("roofline", [unet.model_copy(update={"device": "abacus"})])
    assert {trace.mode for trace in figure.data} == {"markers"}


def test_measured_peaks_replace_the_data_sheet(detailed):
    own = DevicePeaks(device="mine", source="measured", gb_per_s=100.0)
    figure = registry.load(PLOTS, "roofline").draw(Analysis((detailed,), peaks=own))
    assert [text for line in figure.data if line.mode == "lines+text" for text in line.text if text] == ["100 GB/s"]


def test_headroom_and_ideal_add_up_to_what_was_measured(detailed):
    analysis = Analysis((detailed,))
    figure = registry.load(PLOTS, "headroom_by_module").draw(analysis)
    assert sum(x for bar in figure.data for x in bar.x) == pytest.approx(analysis.frame["time_ms"].sum())


def test_efficiency_says_what_it_leaves_out(detailed):
    analysis = Analysis((detailed,))
    figure = registry.load(PLOTS, "efficiency").draw(analysis)
    shown = sum(y for bar in figure.data for y in bar.y)
    lost = analysis.frame["time_ms"].sum() - shown
    assert lost > 0
    assert f"{lost:.4g} ms" in figure.layout.xaxis.title.text


def test_precision_rings_count_layers_and_time(detailed):
    counts, times = draw("precision_pies", [detailed]).data
    assert dict(zip(counts.labels, counts.values, strict=True)) == {"float16": 4, "unknown": 2, "float32": 1}
    assert dict(zip(times.labels, times.values, strict=True))["float32"] == pytest.approx(0.25)


def test_a_long_label_keeps_both_ends():
    short = label("/down_blocks.0/attentions.1/transformer_blocks.0/attn1/to_q/MatMul", 24)
    assert len(short) == 24
    assert short.startswith("/down_")
    assert short.endswith("to_q/MatMul")
