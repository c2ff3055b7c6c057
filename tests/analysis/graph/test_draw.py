"""Edges, parts of plans, and Graphviz pictures of them, also for names and graphs that are out to break them."""

from __future__ import annotations

import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET

import pytest

from sdtrt.analysis.graph import draw
from sdtrt.analysis.graph.edges import bindings, edges, one_writer_each
from sdtrt.analysis.graph.modules import layer_paths, runs, short_name
from sdtrt.analysis.module_paths import module_path
from sdtrt.errors import ConfigError
from sdtrt.plan.layers import Layer, Plan, TensorInfo, Timing

needs_dot = pytest.mark.skipif(not shutil.which("dot"), reason="Graphviz is not installed")
SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = 'a:b "quoted" <b>&amp;</b> \\N \x1e\x07\ud800 {x|y} ü\n</script>'


def tensor(name, shape=(1, 320, 64, 64), dtype="float16"):
    return TensorInfo(name=name, shape=shape, dtype=dtype)


def layer(name, reads=(), writes=(), **more):
    more = {"kind": "conv", "op": "Conv", **more}
    return Layer(name=name, inputs=tuple(map(tensor, reads)), outputs=tuple(map(tensor, writes)), **more)


def plan(*layers, **more):
    about = {"component": "unet", "backend": "b", "backend_version": None, "device": None, "precision": None}
    return Plan(layers=layers, **{**about, **more})


def ends(plan):
    return [(edge.source, edge.target) for edge in edges(plan)]


@pytest.fixture
def block() -> Plan:
    """x -> conv -> norm -> act -> add, with a skip from x's layer to add, and a layer that touches nothing."""
    return plan(
        layer("/down/conv/Conv", ["x"], ["a"], module="down_blocks.0.conv", timing=Timing(median_ms=3.0)),
        layer("/down/norm/Norm", ["a"], ["b"], module="down_blocks.0.norm", kind="norm", op="Norm", nodes=("n1", "n2")),
        layer("/mid/act/Silu", ["b"], ["c"], module="mid_block.act", kind="pointwise", op="Silu", times_ms=(1.0, 2.0)),
        layer("/mid/Add", ["c", "a"], ["y"], module="mid_block", kind="pointwise", op="Add", precision="float16"),
        layer("alone", op="Constant", kind="shape"),
    )


@pytest.fixture
def hostile() -> Plan:
    """Every text is hostile, a tensor is read twice, two layers share a name, and one reads what it writes."""
    first = layer(HOSTILE, ["x", "x"], [HOSTILE], op=HOSTILE, kernel="k" * 20000, nodes=(HOSTILE,) * 30)
    attributes = {HOSTILE: HOSTILE, "long": ["\\" * 9000, {"deep": [None, "é" * 9000]}]}
    second = layer(HOSTILE, [HOSTILE], ["y", "z"], module=HOSTILE, attributes=attributes)
    return plan(first, second, layer("loop", ["self"], ["self"]), component=HOSTILE)


def test_a_layer_is_joined_to_the_one_that_writes_what_it_reads(block):
    assert ends(block) == [(0, 1), (1, 2), (2, 3), (0, 3)]


def test_a_reader_takes_the_last_of_several_producers():
    memory = plan(
        layer("a", ["x"], ["m"]), layer("b", ["m"], ["n"]), layer("c", ["n"], ["m"]), layer("d", ["m"], ["y"])
    )
    assert ends(memory) == [(0, 1), (1, 2), (2, 3)]


def test_a_loop_gives_a_back_edge_and_a_layer_none_to_itself():
    assert ends(plan(layer("a", ["late", "x"], ["m"]), layer("b", ["m"], ["late"]))) == [(1, 0), (0, 1)]
    assert ends(plan(layer("a", ["m", "m"], ["m"]))) == []


def test_an_input_of_the_engine_is_not_read_from_a_later_layer():
    assert ends(plan(layer("a", ["x"], ["m"]), layer("b", ["m"], ["x"]), inputs=(tensor("x"),))) == [(0, 1)]


def test_layers_without_tensors_are_chained_in_their_order():
    assert ends(plan(layer("a"), layer("b"), layer("c"))) == [(0, 1), (1, 2)]
    assert ends(plan()) == []


def test_an_edge_knows_what_only_its_reader_says():
    bare = plan(
        Layer(name="a", kind="conv", op="Conv", outputs=(TensorInfo(name="t"),)),
        Layer(name="b", kind="conv", op="Conv", inputs=(tensor("t", (2, 3), "int8"),)),
    )
    assert edges(bare)[0].tensor == tensor("t", (2, 3), "int8")


def test_bindings_are_the_plans_or_what_nobody_writes_and_reads(block):
    assert [[t.name for t in side] for side in bindings(block)] == [["x"], ["y"]]
    declared = block.model_copy(update={"inputs": (tensor("sample"),)})
    assert bindings(declared) == ((tensor("sample"),), ())


def test_renaming_gives_every_tensor_one_writer_and_keeps_the_edges():
    memory = plan(
        layer("a", ["m", "x"], ["m"]), layer("b", ["m"], ["m"]), layer("c", ["m"], ["m (2)"]), inputs=(tensor("m"),)
    )
    unique = one_writer_each(memory)
    written = [t.name for each in unique.layers for t in each.outputs]
    assert len(set(written)) == len(written) == 3
    assert "m" not in written, "that is the input's name"
    assert ends(unique) == ends(memory) == [(0, 1), (1, 2)]


def test_a_pattern_keeps_matches_and_their_neighbors(block):
    names = [each.name for each in draw.subgraph(block, "silu", radius=0).layers]
    assert names == ["/mid/act/Silu"]
    names = [each.name for each in draw.subgraph(block, "SILU").layers]
    assert names == ["/down/norm/Norm", "/mid/act/Silu", "/mid/Add"]
    assert [each.name for each in draw.subgraph(block, r"^n2$", radius=0).layers] == ["/down/norm/Norm"]


def test_shares_in_a_part_are_those_of_the_whole_engine(block):
    part = draw.around(draw.subgraph(block, "silu"), "/mid/act/Silu", 0)
    assert ">1.5 ms, 33.3 %<" in draw.to_dot(part).source


def test_a_part_of_a_plan_without_tensors_joins_only_what_was_joined():
    part = draw.subgraph(plan(*(layer(name) for name in ("a1", "b", "c", "a2"))), "a", radius=0)
    assert ends(part) == []


def test_around_takes_a_name_or_a_number(block):
    by_name = draw.around(block, "/mid/act/Silu", 1)
    assert by_name == draw.around(block, 2, 1)
    assert [each.name for each in by_name.layers] == ["/down/norm/Norm", "/mid/act/Silu", "/mid/Add"]
    assert len(draw.around(block, 2, 9).layers) == 4, "the layer without edges is never near"


@pytest.mark.parametrize(
    ("select", "slug"),
    [
        (lambda p: draw.subgraph(p, "("), "query"),
        (lambda p: draw.subgraph(p, "nothing"), "no-match"),
        (lambda p: draw.around(p, "/mid/act/Silo"), "no-match"),
        (lambda p: draw.around(p, 99), "no-match"),
        (lambda p: draw.by_module(p, 0), "depth"),
    ],
)
def test_a_wrong_selection_says_what_would_be_right(block, select, slug):
    with pytest.raises(ConfigError) as caught:
        select(block)
    assert caught.value.slug == slug
    assert caught.value.expected


def test_a_missed_name_is_answered_with_close_ones(block):
    with pytest.raises(ConfigError, match="/mid/act/Silu"):
        draw.around(block, "/mid/act/Silo")


def test_modules_become_one_layer_each(block):
    modules = draw.by_module(block)
    assert [each.name for each in modules.layers] == ["down_blocks.0", "mid_block", "(no module)"]
    down, mid, lost = modules.layers
    assert (down.time_ms, mid.time_ms, lost.time_ms) == (3.0, 1.5, None), "the unknown stays unknown"
    assert [t.name for t in down.outputs] == ["a", "b"]
    assert [t.name for t in mid.inputs] == ["b", "a"]
    assert mid.attributes == {"layers": 2, "layers without a time": 1}
    assert set(ends(modules)) == {(0, 1)}
    assert [each.name for each in draw.by_module(block, 2).layers][:2] == ["down_blocks.0.conv", "down_blocks.0.norm"]


def test_numbers_stay_with_their_module():
    assert module_path("attentions.0.norm") == ("attentions.0", "norm")
    assert module_path(None) == module_path("") == ("(no module)",)


def test_modules_are_read_from_names_where_the_plan_has_none():
    named = plan(layer("/layer1/conv/Conv + /layer1/relu/Relu"), layer("/layer1/Add"), layer("other"))
    assert layer_paths(named) == [("layer1", "conv"), ("layer1",), ("(no module)",)]
    assert layer_paths(plan(layer("Conv_0"), layer("Relu_1"))) == [(), ()]


def test_a_short_name_drops_the_paths_of_fused_nodes():
    assert short_name("/a/b/Conv + /a/c/Relu") == "Conv + Relu"
    assert short_name("Conv_0\x1eRelu_1") == "Conv_0 + Relu_1"
    assert short_name("/") == "/"


def test_runs_are_cut_where_the_fewest_tensors_cross():
    blocks, before = [], "x"
    for number in range(9):  # a residual block: three layers, and the input again in the last
        names = [f"{number}{letter}" for letter in "abc"]
        sources = [[before], [names[0]], [names[1], before]]
        blocks += [layer(name, reads, [name]) for name, reads in zip(names, sources, strict=True)]
        before = names[2]
    found = runs(range(27), edges(plan(*blocks)))
    assert [run[0] % 3 for run in found] == [0] * len(found)
    assert [number for run in found for number in run] == list(range(27))
    assert 3 < len(found) < 10
    assert len(runs(range(3000), ())) <= 25


def test_the_graph_has_a_node_per_layer_and_an_edge_per_pair(block):
    source = draw.to_dot(block).source
    assert source.count("[label=<<table") == 4, "constants are hidden"
    assert source.count("->") == 4 + 2, "and the engine's input and output"
    assert "3 ms, 66.7 %" in source
    assert "1x320x64x64 float16" in source
    assert draw.to_dot(block, display_constants=True).source.count("<<table") == 5
    alone = draw.to_dot(block, display_constants=True, remove_disconnected_layers=True).source
    assert alone.count("<<table") == 4


@pytest.mark.parametrize(
    ("option", "text"),
    [
        ("display_layer_names", ">/mid/act/Silu<"),
        ("display_latency", ">1.5 ms, 33.3 %<"),
        ("display_metadata", ">n1<"),
        ("display_edge_details", 'label="1x320x64x64 float16"'),
    ],
)
def test_each_option_takes_away_what_it_names(block, option, text):
    assert text in draw.to_dot(block).source
    assert text not in draw.to_dot(block, **{option: False}).source


def test_names_that_tensorrt_joined_are_stacked_or_not():
    fused = plan(layer("Conv_0 + Relu_1"))
    assert ">Conv_0</font></td></tr><tr><td><font>Relu_1<" in draw.to_dot(fused).source
    assert "Conv_0 + Relu_1" in draw.to_dot(fused, stack_layer_names=False).source


def test_latencies_are_median_mean_or_sum():
    timed = plan(layer("a", times_ms=(1.0, 2.0, 9.0)), layer("b", timing=Timing(total_ms=70.0, mean_ms=7.0)))
    texts = {kind: draw.to_dot(timed, latency_type=kind).source for kind in ("median_time", "avg_time", "time")}
    assert ">2 ms, 22.2 %<" in texts["median_time"]
    assert ">4 ms, 36.4 %<" in texts["avg_time"]
    assert ">12 ms, 14.6 %<" in texts["time"]
    assert all(">time unknown<" not in text for text in texts.values())


def test_formatters_color_by_kind_and_by_precision(block):
    conv, norm, *_ = block.layers
    assert draw.layer_type_formatter(conv)["fillcolor"] != draw.layer_type_formatter(norm)["fillcolor"]
    half, single = (conv.model_copy(update={"precision": name}) for name in ("float16", "float32"))
    assert draw.precision_formatter(half)["fillcolor"] != draw.precision_formatter(single)["fillcolor"]
    eight = [conv.model_copy(update={"precision": name}) for name in ("float8_e4m3fn", "float8_e5m2")]
    assert draw.precision_formatter(eight[0]) == draw.precision_formatter(eight[1])
    mine = draw.to_dot(block, lambda each: {"fillcolor": "tomato", "style": "filled"}).source
    assert mine.count("tomato") == 4


def test_a_highlighted_layer_has_a_border_of_its_own(block):
    assert "penwidth=5" not in draw.to_dot(block).source
    for chosen in ("/mid/Add", 3):
        lines = [
            line for line in draw.to_dot(block, highlight_layers=[chosen]).source.splitlines() if "penwidth=5" in line
        ]
        assert len(lines) == 1
        assert "/mid/Add" in lines[0]


@needs_dot
def test_hostile_names_are_drawn_as_text(hostile, tmp_path):
    path = draw.render_dot(draw.to_dot(hostile, highlight_layers=[HOSTILE]), tmp_path / "unet")
    tree = ET.parse(path)  # noqa: S314 (written by Graphviz just now)
    texts = [text.text for text in tree.iter(f"{SVG}text")]
    assert any('a:b "quoted" <b>&amp;</b>' in (text or "") for text in texts)
    assert not list(tree.iter(f"{SVG}script"))
    nodes = [g for g in tree.iter(f"{SVG}g") if g.get("class") == "node"]
    assert len(nodes) == 3 + 5, "layers, what comes in (x, self) and what goes out (y, z, and the new self)"


@needs_dot
@pytest.mark.parametrize(("fmt", "magic"), [("svg", b"<?xml"), ("png", b"\x89PNG"), ("dot", b"// written by sdtrt")])
def test_pictures_are_written_beside_and_renamed(block, tmp_path, fmt, magic):
    graph = draw.to_dot(draw.by_module(block))
    path = draw.render_dot(graph, tmp_path / "a.b", fmt)
    assert path == tmp_path / f"a.b.{fmt}" == draw.render_dot(graph, path, fmt)
    assert path.read_bytes().startswith(magic)
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


def test_a_missing_dot_says_what_to_install(block, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(draw.DrawError, match="apt install graphviz") as caught:
        draw.render_dot(draw.to_dot(block), tmp_path / "unet")
    assert caught.value.slug == "dot-missing"
    assert draw.render_dot(draw.to_dot(block), tmp_path / "unet", "dot").exists(), "the text needs no Graphviz"


def fake_dot(folder, script, monkeypatch):
    (folder / "dot").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "dot").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


def test_a_graph_that_takes_too_long_says_how_to_draw_less(block, tmp_path, monkeypatch):
    fake_dot(tmp_path, "exec sleep 60", monkeypatch)
    with pytest.raises(draw.DrawError, match="subgraph") as caught:
        draw.render_dot(draw.to_dot(block), tmp_path / "unet", timeout_s=0.2)
    assert caught.value.slug == "dot-timeout"
    assert not (tmp_path / "unet.svg").exists()


def test_what_graphviz_complains_about_is_in_the_error(block, tmp_path, monkeypatch):
    fake_dot(tmp_path, "cat > /dev/null; echo 'syntax error in line 3' >&2; exit 1", monkeypatch)
    with pytest.raises(draw.DrawError, match="syntax error in line 3"):
        draw.render_dot(draw.to_dot(block), tmp_path / "unet")
    with pytest.raises(draw.DrawError, match="svg, png, dot"):
        draw.render_dot(draw.to_dot(block), tmp_path / "unet", "pdf")


def test_importing_the_module_needs_no_graphviz():
    code = "import sys; sys.modules['graphviz'] = None; import sdtrt.analysis.graph.draw"
    subprocess.run([sys.executable, "-c", code], check=True)
