"""TREx's plot functions: they draw what they are given, escape it, return the figure, and need no notebook."""

from __future__ import annotations

from functools import partial

import pandas as pd
import pytest

from sdtrt.analysis import trex
from sdtrt.analysis.trex import (
    group_count,
    group_mean_attr,
    group_sum_attr,
    layer_colormap,
    plotly_bar2,
    plotly_hist,
    plotly_pie,
    plotly_pie2,
    precision_colormap,
    rotate_columns,
    shape_to_str,
    stack_dataframes,
    stack_dicts,
    stacked_bars,
    stacked_tabular_df,
)

HOSTILE = "<b>bold</b><script>alert(1)</script>"


@pytest.fixture
def df() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "Name": ["a", HOSTILE, "c"],
            "type": ["Convolution", "kgen", "new"],
            "ms": [3.0, 2.0, float("nan")],
            "bytes": [1, 2, 3],
            "kernel": [(3, 3), (1, 1), (3, 3)],
        }
    )


DRAW = {
    "bar": lambda df: plotly_bar2(df, HOSTILE, "ms", "Name", color="type"),
    "bars": lambda df: plotly_bar2({HOSTILE: df, "b": df}, "t", "ms", "Name", showlegend=True),
    "hist": lambda df: plotly_hist(df, HOSTILE, "ms", HOSTILE, "Name"),
    "pie": lambda df: plotly_pie(df, HOSTILE, "ms", "Name"),
    "pies": lambda df: plotly_pie2(HOSTILE, [(df, HOSTILE, "ms", "Name"), (df, "n", "bytes", "type")]),
    "stacked": lambda df: stacked_bars(HOSTILE, [HOSTILE, "b"], [df, df], "Name", "ms", display_tbl=False),
}


@pytest.mark.parametrize("name", DRAW)
def test_what_comes_from_a_file_is_shown_as_text_and_never_as_markup(name, df):
    figure = DRAW[name](df)
    assert len(figure.data) >= 1
    assert "<script" not in figure.to_json().encode().decode("unicode_escape")


def test_a_title_keeps_its_line_breaks_and_nothing_else(df):
    figure = plotly_bar2(df, "Latency<BR>(<i>color</i>)", "ms", "Name")
    assert figure.layout.title.text == "Latency<br>(&lt;i&gt;color&lt;/i&gt;)"


@pytest.mark.parametrize(("orientation", "values", "names"), [("v", "y", "x"), ("h", "x", "y")])
def test_bars_stand_or_lie(df, orientation, values, names):
    (bar,) = plotly_bar2(df, "t", "bytes", "type", orientation).data
    assert list(bar[values]) == [1, 2, 3]
    assert list(bar[names]) == ["Convolution", "kgen", "new"]
    assert bar.orientation == orientation


def test_categories_have_the_colors_of_the_map_and_gray_beyond_it(df):
    (bar,) = plotly_bar2(df, "t", "ms", "Name", color="type", colormap=layer_colormap).data
    assert list(bar.marker.color) == [layer_colormap["Convolution"], layer_colormap["kgen"], "gray"]
    (plain,) = plotly_bar2(df, "t", "ms", "Name", color="type", colormap={"kgen": "red"}).data
    assert list(plain.marker.color) == ["gray", "red", "gray"]


def test_categories_without_a_map_keep_their_colors_from_run_to_run(df):
    (bar,) = plotly_bar2(df, "t", "ms", "Name", color="kernel").data
    first, second, third = bar.marker.color
    assert first == third != second
    assert first == trex.default_pallete[0]


def test_numbers_have_a_color_scale(df):
    (bar,) = plotly_bar2(df, "t", "ms", "Name", color="bytes").data
    assert list(bar.marker.color) == [1, 2, 3]
    assert bar.marker.colorbar.title.text == "bytes"


def test_ticks_slider_and_size_are_as_asked(df):
    figure = plotly_bar2(
        df, "t", "ms", "Name", use_slider=True, show_axis_ticks=(True, False), size=(300, 200), xaxis_title="Layer"
    )
    axes = figure.layout.xaxis, figure.layout.yaxis
    assert [axis.showticklabels for axis in axes] == [True, False]
    assert figure.layout.xaxis.rangeslider.visible
    assert (figure.layout.width, figure.layout.height, axes[0].title.text) == (300, 200, "Layer")


def test_a_histogram_counts_what_is_known(df):
    figure = plotly_hist(df, "t", "ms", "ms", "type", layer_colormap)
    assert [trace.name for trace in figure.data] == ["Convolution", "kgen"]
    assert sum(len(trace.x) for trace in figure.data) == 2


def test_pies_stand_in_a_grid(df):
    figure = plotly_pie2(
        "t", [(df, str(i), "bytes", "type") for i in range(4)], max_cols=3, colormap=precision_colormap
    )
    assert len(figure.data) == 4
    assert figure.data[3].domain.y[1] < figure.data[0].domain.y[0]


def test_bars_are_added_to_a_figure_that_is_given(df):
    first = stacked_bars("t", ["a"], [df], "type", "bytes", display_tbl=False)
    both = stacked_bars("t", ["a"], [df], "type", "bytes", display_tbl=False, fig=first, colormap=layer_colormap)
    assert both is first
    assert len(both.data) == 6
    assert both.data[5].marker.color == "gray"


def test_tables_are_stacked_with_a_placeholder_for_what_one_lacks():
    one, two = pd.DataFrame({"k": ["a", "b"], "v": [1, 2]}), pd.DataFrame({"k": ["b", "c"], "v": [3, 4]})
    assert stack_dataframes([one, two], "k", "v") == {"a": [1, 0], "b": [2, 3], "c": [0, 4]}
    assert stack_dicts([{"a": 1}, {"b": 2}], None) == {"a": [1, None], "b": [None, 2]}
    table = stacked_tabular_df(["one", "two"], [one, two], "k", "v")
    assert table.columns.tolist() == ["v", "one", "two"]
    assert table["v"].tolist() == ["a", "b", "c"]
    assert rotate_columns(table).columns.tolist() == ["two", "v", "one"]


def test_groups_are_counted_summed_and_averaged(df):
    grouped = pd.concat([df, df])
    assert group_count(grouped, "type")["count"].tolist() == [2, 2, 2]
    assert group_mean_attr(grouped, "type", "ms")["ms"].tolist()[:2] == [3.0, 2.0]
    sums = group_sum_attr(grouped, "type", "ms").set_index("type")["ms"]
    assert sums["Convolution"] == 6.0
    assert pd.isna(sums["new"])  # nothing is known of it, which is not 0 ms


def test_shapes_are_written_as_trex_writes_them():
    assert shape_to_str([1, 64, 56]) == "[1,64,56]"


def test_nothing_is_shown_outside_a_notebook(df, monkeypatch):
    import plotly.graph_objects as go

    monkeypatch.setattr(go.Figure, "show", lambda *_: pytest.fail("a figure was shown"))
    for draw in DRAW.values():
        draw(df)


def test_in_a_notebook_figures_are_shown_unless_told_otherwise(df, monkeypatch):
    import plotly.graph_objects as go

    shown = []
    monkeypatch.setattr(go.Figure, "show", lambda figure: shown.append(figure))
    monkeypatch.setattr(trex.notebook, "in_notebook", lambda: True)
    draw = partial(plotly_bar2, df, "t", "ms", "Name")
    figure = draw()
    draw(do_show=False)
    assert shown == [figure]


def test_tables_are_text_in_a_terminal_and_another_backend_can_show_them(df, capsys, monkeypatch):
    trex.display_df(df)
    assert "Convolution" in capsys.readouterr().out
    monkeypatch.setattr(trex.notebook, "_backend", trex.notebook._backend)
    seen = []
    trex.set_table_display_backend(lambda df, precision=2: seen.append((len(df), precision)))
    trex.display_df(df, precision=4, range_highlights={})
    assert seen == [(3, 4)]
