"""Every plot in the folder draws every kind of plan, without a tag from a file in any label."""

from __future__ import annotations

import json

import plotly.graph_objects as go
import pytest

from sdtrt import registry
from sdtrt.analysis import to_frame
from sdtrt.analysis._colors import KIND_COLORS, NEUTRAL
from sdtrt.analysis.plots._layout import label
from sdtrt.plan import KINDS

PLOTS = "sdtrt.analysis.plots"
NAMES = registry.names(PLOTS)


def draw(name, plans) -> go.Figure:
    return registry.load(PLOTS, name).draw(to_frame(plans), plans)


def test_the_plots_are_found():
    assert set(NAMES) >= {"time_by_kind", "time_by_module", "top_layers"}
    assert all(registry.load(PLOTS, name).TITLE and registry.load(PLOTS, name).CAPTION for name in NAMES)


def test_every_kind_has_one_color_of_its_own():
    assert tuple(KIND_COLORS) == KINDS
    assert len({*KIND_COLORS.values(), NEUTRAL}) == len(KINDS) + 1


@pytest.mark.parametrize("name", NAMES)
def test_draws_layers_with_times(name, plans):
    figure = draw(name, plans)
    assert len(figure.data) > 0
    assert figure.layout.height > 120


@pytest.mark.parametrize("name", NAMES)
def test_says_that_nothing_was_timed(name, untimed):
    for plans in ([], [untimed], [untimed.model_copy(update={"layers": ()})]):
        figure = draw(name, plans)
        assert len(figure.data) == 0
        assert [note.text for note in figure.layout.annotations] == ["No layer was timed."]


@pytest.mark.parametrize("name", NAMES)
def test_labels_hold_no_markup(name, plans, unet):
    hostile = unet.model_copy(update={"component": "<a href='javascript:alert(3)'>x</a>"})
    text = json.dumps(json.loads(draw(name, [*plans, hostile]).to_json()))
    for tag in ("<img", "<b>", "<a ", "</script", "&lt;i&gt;"):
        assert tag not in text.replace("&amp;lt;i&amp;gt;", "")


def test_colors_mean_the_same_in_every_plot(plans):
    for name in ("time_by_kind", "top_layers"):
        assert {bar.name: bar.marker.color for bar in draw(name, plans).data}.items() <= KIND_COLORS.items()
    assert set(draw("time_by_module", plans).data[0].marker.colors) <= {*KIND_COLORS.values(), NEUTRAL}


def test_kinds_add_up_to_the_whole(plans):
    assert sum(x for bar in draw("time_by_kind", plans).data for x in bar.x) == pytest.approx(100)


def test_modules_nest_and_add_up(plans):
    tree = draw("time_by_module", plans).data[0]
    times = dict(zip(tree.labels, tree.values, strict=True))
    assert times["all engines"] == times["unet"] == pytest.approx(4.0)
    assert times["attentions.1"] == pytest.approx(1.75)
    assert times["(no module)"] == pytest.approx(0.125)
    for node, value in zip(tree.ids, tree.values, strict=True):
        children = [v for parent, v in zip(tree.parents, tree.values, strict=True) if parent == node]
        assert sum(children) <= value * (1 + 1e-9)


def test_a_long_label_keeps_both_ends():
    short = label("/down_blocks.0/attentions.1/transformer_blocks.0/attn1/to_q/MatMul", 24)
    assert len(short) == 24
    assert short.startswith("/down_")
    assert short.endswith("to_q/MatMul")
