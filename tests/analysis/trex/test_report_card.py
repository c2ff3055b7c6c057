"""Report cards, linters, graphs and comparisons over an engine's files, without a notebook."""

from __future__ import annotations

import pytest
from trt_dump import write

from sdtrt.analysis import trex
from sdtrt.analysis.trex import EnginePlan
from sdtrt.analysis.trex.compare_engines import aligned_merge_plans
from sdtrt.analysis.trex.figures.menu import menu

LATENCY = "latency.avg_time"


@pytest.fixture(scope="module")
def dumps(tmp_path_factory):
    folder = tmp_path_factory.mktemp("engines")
    return [write(folder / version, version, name="unet") for version in ("8", "10")]


@pytest.fixture(scope="module")
def plans(dumps) -> list[EnginePlan]:
    return [EnginePlan(d.graph, d.profile, d.profile_metadata, onnx=d.onnx) for d in dumps]


@pytest.fixture(scope="module")
def plan(plans) -> EnginePlan:
    return plans[1]


CARDS = {
    "perf": (lambda plan: trex.report_card_perf_overview(plan), 10),
    "memory": (lambda plan: trex.report_card_memory_footprint(plan), 6),
    "convolutions": (lambda plan: trex.report_card_convolutions_overview(plan.get_layers_by_type("Convolution")), 13),
}


@pytest.mark.parametrize("name", CARDS)
def test_cards_are_figures_by_their_titles(name, plan):
    draw, count = CARDS[name]
    cards = draw(plan)
    assert len(cards) == count
    assert all(figure.data for figure in cards.values())


def test_latency_per_type_is_the_sum_of_its_layers(plan):
    (bar,) = trex.report_card_perf_overview(plan)["Latency per layer type (ms)"].data
    assert sum(bar.x) == pytest.approx(plan.total_runtime)


WIDGETS = [
    trex.report_card_perf_overview_widget,
    trex.report_card_memory_footprint_widget,
    trex.report_card_reformat_overview,
    trex.report_card_gemm_MNK,
    trex.report_card_gemm_MNK_scatter,
    trex.report_card_perf_scatter,
]


@pytest.mark.parametrize("widget", WIDGETS, ids=lambda widget: widget.__name__)
def test_a_menu_shows_one_figure_at_a_time(widget, plan):
    figure = widget(plan)
    (choices,) = figure.layout.updatemenus
    assert len(choices.buttons) >= 3
    masks = [button.args[0]["visible"] for button in choices.buttons]
    # Every trace belongs to exactly one entry, and the first entry is what one sees at first.
    assert [sum(column) for column in zip(*masks, strict=True)] == [1] * len(figure.data)
    assert [trace.visible for trace in figure.data] == masks[0]
    assert len({button.label for button in choices.buttons}) == len(choices.buttons)


def test_a_menu_of_nothing_is_empty():
    assert len(menu({}).data) == 0


def test_the_sunburst_shows_latencies(plan):
    # TREx draws how many layers there are, under the title of their latencies.
    (sunburst,) = trex.layer_latency_sunburst(plan.df, "Latency (%)").data
    totals = dict(zip(sunburst.labels, sunburst.values, strict=True))
    for kind, share in plan.df.groupby("type")["latency.pct_time"].sum().items():
        assert totals[kind] == pytest.approx(share)


def test_the_timings_of_all_runs_are_drawn(dumps):
    (trace,) = trex.plot_engine_timings(dumps[0].timing).data
    assert len(trace.y) == 100


def test_the_table_view_says_what_a_type_takes(plan, capsys):
    trex.report_card_table_view(plan, "gemm")
    out = capsys.readouterr().out
    gemms = plan.get_layers_by_type("gemm")
    assert f"{len(gemms)} gemm layers take {gemms['latency.pct_time'].sum():.2f} %" in out
    assert "to_q" in out


def test_pointwise_layers_are_listed_by_their_operations(capsys):
    tensor = {"Name": "x", "Dimensions": [1, 8], "Format/Datatype": "Row major linear FP16 format"}
    layer = {"Name": "pw", "LayerType": "PointWiseV2", "ParameterType": "PointWise", "Inputs": [tensor]}
    layer |= {"Outputs": [{**tensor, "Name": "y"}], "NbOperations": 2, "Operations": ["a = x + 1", "b = a * 2"]}
    assert len(trex.report_card_pointwise_lint(EnginePlan([layer], name="p")).data) == 3
    assert "b = a * 2" in capsys.readouterr().out
    trex.report_card_pointwise_lint(EnginePlan([{**layer, "ParameterType": "Shuffle"}]))
    assert "does not contain pointwise layers" in capsys.readouterr().out


def test_a_graph_has_folded_layers_and_takes_a_formatter_of_one_s_own(plan, tmp_path):
    def colored(layer):
        return {"style": "filled", "fillcolor": {"gemm": "#123456"}.get(layer.type, "white")}

    source = trex.to_dot(plan, colored).source
    assert source.count("#123456") == len(plan.get_layers_by_type("gemm"))
    assert "NoOp" not in source
    path = trex.render_dot(trex.to_dot(plan, trex.precision_formatter), tmp_path / "engine.plan", "dot")
    assert path.name == "engine.plan.dot"


def test_options_of_trex_without_a_counterpart_are_named_and_do_no_harm(plan):
    with pytest.warns(UserWarning, match="display_regions, expand_layer_details"):
        trex.to_dot(plan, trex.layer_type_formatter, display_regions=True, expand_layer_details=True)


def test_a_part_of_an_engine_plan_can_be_drawn(plan):
    part = trex.subgraph(plan, "attn1")
    assert 0 < len(part.layers) < len(plan.layers)
    assert trex.to_dot(part).source


@pytest.mark.parametrize("linter", [trex.ConvLinter, trex.ReformatLinter, trex.SliceLinter, trex.QDQLinter])
def test_linters_give_a_table_of_layers_of_the_plan(linter, plans):
    for plan in plans:
        table = linter(plan).lint()
        assert {"name", "tactic", "subtype", "hazard", "mitigation", "help"} <= set(table.columns)
        assert set(table["name"]) <= set(plan.df["Name"])


def test_a_convolution_on_plain_arithmetic_is_a_hazard():
    def tensor(name):
        return {"Name": name, "Dimensions": [2, 64, 64, 64], "Format/Datatype": "Row major linear FP16 format"}

    layer = {"Name": "c", "LayerType": "CaskConvolution", "ParameterType": "Convolution", "Kernel": [3, 3]}
    layer |= {"Inputs": [tensor("x")], "Outputs": [tensor("y")], "OutMaps": 64, "Groups": 1}
    layer |= {"Weights": {"Type": "Half", "Count": 36864}, "TacticName": "sm80_xmma_fprop_f16f16_f16_ffma_nchw"}
    table = trex.ConvLinter(EnginePlan([layer])).lint()
    assert table["name"].tolist()[:1] == ["c"]
    # TREx takes any name with "xmma" in it for tensor cores.
    assert table["tactic"].tolist()[0].endswith("ffma_nchw")


def test_aligned_plans_lose_no_layer_and_no_time(plans):
    first, second = plans
    table = aligned_merge_plans(first, second)
    for number, plan in ((1, first), (2, second)):
        names = [name for cell in table[f"name ({number})"] for name in cell.split("\n") if name]
        assert sorted(names) == sorted(layer.name for layer in plan.all_layers)
    both = table.dropna(subset=["time (1)", "time (2)"])
    speedup = both["time (1)"] / both["time (2)"]
    assert both["speedup (2)"].dropna().tolist() == pytest.approx(speedup[both["speedup (2)"].notna()].tolist())


def test_comparisons_are_shown_in_a_terminal_too(plans, capsys):
    trex.compare_engines_summaries_tbl(plans)
    trex.compare_engines_layer_latencies(*plans)
    out = capsys.readouterr().out
    assert "unet.onnx.engine.graph.json (1)" in out
    assert "speedup (2)" in out
    assert len(trex.compare_engines_overview(plans).layout.updatemenus[0].buttons) == 4
