"""Alignment and comparison: every layer once, times that add up, fusions told as such, and reports that hold."""

from __future__ import annotations

import json
import re
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from locations import DUMPS
from work import calls

from sdtrt.analysis import compare, comparison_to_json, comparison_to_markdown, gate, load, render_comparison
from sdtrt.analysis.comparison.align import align
from sdtrt.analysis.comparison.compare import diff
from sdtrt.analysis.module_paths import NO_MODULE, module_at
from sdtrt.errors import ConfigError
from sdtrt.plan.layers import KINDS, Layer, NodeCost, Plan, TensorInfo

RESNET = DUMPS / "trt8-resnet18-a100"


def layer(name, ms=1.0, nodes=(), module=None, kind="gemm", shape=None, **more):
    tensors = () if shape is None else (TensorInfo(name=f"{name}.t", shape=shape),)
    return Layer(
        name=name,
        kind=kind,
        op=more.pop("op", kind),
        nodes=nodes,
        module=module,
        times_ms=None if ms is None else (ms,),
        inputs=tensors,
        outputs=tensors,
        **more,
    )


def plan(*layers, component="unet", **more):
    return Plan(
        component=component, backend="fake", backend_version=None, device=None, precision=None, layers=layers, **more
    )


def matches(a, b):
    """Names of both sides of every match, with what it stands on."""
    return {
        (tuple(a.layers[i].name for i in left), tuple(b.layers[j].name for j in right), by)
        for left, right, by in align(a, b)
    }


def test_three_layers_that_became_one_are_one_group():
    a = plan(layer("conv", nodes=("Conv",)), layer("bias", nodes=("Add",)), layer("relu", nodes=("Relu",)))
    b = plan(layer("conv+bias+relu", 1.5, nodes=("Conv", "Add", "Relu")))
    (group,) = diff(a, b).groups
    assert (len(group.before), len(group.after), group.by) == (3, 1, "nodes")
    assert (group.before_ms, group.after_ms, group.delta_ms, group.speedup) == (3.0, 1.5, -1.5, 2.0)
    assert group.nodes == ("Conv", "Add", "Relu")


def test_fusions_that_overlap_are_one_group_of_many_to_many():
    a = plan(layer("a1", nodes=("1", "2")), layer("a2", nodes=("3",)))
    b = plan(layer("b1", nodes=("1",)), layer("b2", nodes=("2", "3")))
    assert matches(a, b) == {(("a1", "a2"), ("b1", "b2"), "nodes")}


def test_a_node_that_does_no_work_does_not_chain_groups_together():
    costs = [
        NodeCost(name=n, op="MatMul", kind="gemm", module="", flops=8, bytes_moved=8, weight_bytes=0) for n in "pq"
    ]
    shape = NodeCost(name="s", op="Reshape", kind="shape", module="", flops=0, bytes_moved=0, weight_bytes=0)
    a = plan(
        layer("p", nodes=("p", "s")), layer("q", nodes=("q", "s")), layer("s", nodes=("s",)), nodes=(*costs, shape)
    )
    b = plan(layer("P", nodes=("p", "s")), layer("Q", nodes=("q", "s")), nodes=(*costs, shape))
    assert matches(a, b) == {(("p", "s"), ("P",), "nodes"), (("q",), ("Q",), "nodes")}


def test_layers_without_nodes_are_matched_by_name_then_by_module_and_kind():
    anchor = layer("x", nodes=("x",))
    kept, moved = layer("Reformat 1", module="m"), [layer(f"old {i}", module="m", kind="reformat") for i in range(3)]
    renamed = [layer(f"new {i}", module="m", kind="reformat") for i in range(2)]
    found = matches(plan(anchor, *moved, kept), plan(anchor, kept, *renamed))
    assert (("Reformat 1",), ("Reformat 1",), "name") in found
    assert (("old 0", "old 1", "old 2"), ("new 0", "new 1"), "module") in found


def test_as_many_layers_of_a_module_and_kind_are_paired_one_to_one():
    anchor = layer("x", nodes=("x",))
    a, b = ([layer(f"{side}{i}", module="m", kind="copy") for i in range(2)] for side in "ab")
    assert matches(plan(anchor, *a), plan(anchor, *b)) >= {(("a0",), ("b0",), "module"), (("a1",), ("b1",), "module")}


def test_the_same_name_in_another_module_is_another_layer():
    anchor = layer("x", nodes=("x",))
    found = matches(
        plan(anchor, layer("Reorder_1", module="down", kind="copy")), plan(anchor, layer("Reorder_1", module="up"))
    )
    assert {by for _, _, by in found} == {"nodes", "nothing"}


def test_plans_without_nodes_are_aligned_by_shape_in_their_order():
    sizes = [(1, 8, 64), (1, 16, 32), (1, 8, 64), (1, 4, 4)]
    a = plan(*(layer(f"a{i}", shape=size) for i, size in enumerate(sizes)))
    b = plan(*(layer(f"b{i}", shape=(2, *size[1:])) for i, size in enumerate([sizes[0], sizes[2], sizes[3]])))
    found = {(left, right) for left, right, by in matches(a, b) if by == "shape"}
    assert found == {(("a0",), ("b0",)), (("a2",), ("b1",)), (("a3",), ("b2",))}, "the batch is not compared"


def test_equal_names_win_over_equal_shapes():
    sizes = [(1, 8)] * 4
    a = plan(*(layer(n, shape=s) for n, s in zip("pqrs", sizes, strict=True)))
    b = plan(*(layer(n, shape=s) for n, s in zip("qrs", sizes[1:], strict=True)))
    assert matches(a, b) == {(("p",), (), "nothing"), *(((n,), (n,), "name") for n in "qrs")}


def test_layers_that_changed_places_are_paired_after_the_sequence():
    a = plan(layer("a", shape=(1, 3)), layer("b", shape=(1, 5)), layer("c", shape=(1, 7)))
    b = plan(layer("C", shape=(1, 7)), layer("A", shape=(1, 3)), layer("B", shape=(1, 5)))
    assert {(left[0], right[0]) for left, right, _ in matches(a, b)} == {("a", "A"), ("b", "B"), ("c", "C")}


def test_an_addition_with_swapped_inputs_is_the_same_addition():
    sides = [TensorInfo(name="x", shape=(1, 8)), TensorInfo(name="y", shape=(1, 1))]
    one = layer("one", kind="pointwise").model_copy(update={"inputs": tuple(sides), "outputs": (sides[0],)})
    other = one.model_copy(update={"name": "other", "inputs": tuple(sides[::-1])})
    assert matches(plan(one), plan(other)) == {(("one",), ("other",), "shape")}


@pytest.mark.parametrize("tensors", [(), (TensorInfo(name="x"),)])
def test_layers_of_unknown_shape_are_not_guessed_together(tensors):
    a, b = (layer(name).model_copy(update={"inputs": tensors, "outputs": tensors}) for name in "ab")
    assert {by for _, _, by in matches(plan(a), plan(b))} == {"nothing"}


def test_aligning_ten_times_the_layers_is_ten_times_the_work():
    pool = [(1, size) for size in range(20)]

    def work(count):
        a, b = (plan(*(layer(f"{s}{i}", shape=pool[i % 20]) for i in range(count))) for s in "ab")
        assert len(align(a, b)) == count
        return calls(lambda: align(a, b))

    assert work(3000) < 12 * work(300)


@pytest.mark.parametrize(("other", "convolutions"), [("fp16", 21), ("qat", 21)])
def test_a_real_engine_aligns_with_the_same_network_in_another_precision(other, convolutions):
    if not RESNET.is_dir():
        pytest.skip("the sample dumps are not here")
    (result,) = compare(load(RESNET / "fp32"), load(RESNET / other))
    (engine,) = result.engines
    pairs = [g for g in engine.groups if g.before and g.after and g.main.kind == "conv"]
    assert len(pairs) == convolutions == sum(x.kind == "conv" for x in engine.before.layers)
    assert all(g.before[0].outputs[0].shape == g.after[0].outputs[0].shape for g in pairs)
    assert sum(g.precision_changed for g in pairs) >= 20
    assert engine.layers.speedup > 1.9
    assert sum(g.after_ms for g in engine.groups) == pytest.approx(engine.layers.after_ms)


layers = st.builds(
    layer,
    name=st.sampled_from("abcd"),
    ms=st.none() | st.floats(0, 100),
    nodes=st.lists(st.sampled_from("uvwxyz"), max_size=3, unique=True).map(tuple),
    module=st.none() | st.sampled_from(["", "m", "m.0", "n"]),
    kind=st.sampled_from(KINDS),
    shape=st.none() | st.tuples(st.just(1), st.none() | st.integers(0, 2)),
)
plans = st.builds(lambda parts: plan(*parts), st.lists(layers, max_size=12))


@settings(max_examples=300, deadline=None)
@given(plans, plans)
def test_every_layer_is_in_exactly_one_group_and_times_add_up(a, b):
    found = align(a, b)
    for side, whole in ((0, a), (1, b)):
        assert sorted(i for match in found for i in match[side]) == list(range(len(whole.layers)))
    assert all((by == "nothing") == (not left or not right) for left, right, by in found)
    engine = diff(a, b)
    for rows in (engine.groups, engine.modules(), engine.modules(1), engine.kinds):
        for side in ("before_ms", "after_ms"):
            total = getattr(engine.layers, side)
            assert sum(getattr(row, side) or 0 for row in rows) == pytest.approx(total or 0)


@settings(max_examples=100, deadline=None)
@given(plans)
def test_a_plan_against_itself_changed_nothing(a):
    engine = diff(a, a)
    assert not engine.unmatched
    assert not any(g.precision_changed or g.kernel_changed for g in engine.groups)
    assert {g.delta_ms for g in engine.groups} <= {0.0, None}


def test_work_that_a_fusion_took_from_another_module_stays_in_one_place():
    a = plan(layer("conv", 3, ("c",), "conv"), layer("act", 1, ("a",), "act"))
    b = plan(layer("conv+act", 3.5, ("c", "a"), "conv"))
    (row,) = diff(a, b).modules()
    assert (row.name, row.before_ms, row.after_ms) == ("conv", 4, 3.5)


def test_kinds_are_those_of_each_side():
    a, b = plan(layer("x", 2, ("n",), kind="reformat")), plan(layer("x", 3, ("n",), kind="conv"))
    rows = {row.name: (row.before_ms, row.after_ms) for row in diff(a, b).kinds}
    assert rows == {"conv": (0, 3), "reformat": (2, 0)}


def test_precision_and_kernel_changes_are_named():
    a = plan(layer("x", nodes=("n",), precision="float32", kernel="ffma"), layer("y", nodes=("m",)))
    b = plan(layer("x", nodes=("n",), precision="float16", kernel="hmma"), layer("y", nodes=("m",), kernel="k"))
    changed, unknown = diff(a, b).groups
    assert changed.precision_changed
    assert changed.kernel_changed
    assert changed.precisions == (("float32",), ("float16",))
    assert not unknown.kernel_changed, "what was not known before cannot have changed"


def test_what_is_not_known_is_none_and_not_zero():
    a, b = plan(layer("x", None, ("n",))), plan(layer("x", 1, ("n",)), layer("new", 0.5))
    group, added = diff(a, b).groups
    assert (group.before_ms, group.delta_ms, group.speedup, group.change_pct) == (None, None, None, None)
    assert (added.before_ms, added.delta_ms, added.speedup) == (0, 0.5, None)
    assert diff(a, a).layers.before_ms is None


def test_other_conditions_are_said():
    a, b = (
        plan(layer("x"), sizes={"B": 1}, shapes={"x": (1, 2)}),
        plan(layer("x"), sizes={"B": 2}, shapes={"x": (2, 2)}),
    )
    b = b.model_copy(update={"backend_version": "11.0", "device": "GPU"})
    expected = ("backend fake → fake 11.0", "sizes B=1 → B=2", "input shapes x=1x2 → x=2x2")
    assert diff(a, b).differences == expected, "an unknown device is not another device"
    text = comparison_to_markdown(compare(a, b))
    assert "sizes B=1 → B=2" in text
    assert not diff(a, a).differences


def test_engines_with_nothing_in_common_are_said_to_be_so():
    a, b = plan(layer("conv", nodes=("Conv",), shape=(1, 8))), plan(layer("head", nodes=("Gemm",), shape=(1, 4)))
    assert diff(a, b).differences == ("no layer of one matches a layer of the other",)


def test_module_paths_are_cut_after_their_index():
    path = "down_blocks.1.attentions.0.transformer_blocks.0.attn2"
    assert module_at(path, 1) == "down_blocks.1"
    assert module_at(path, 2) == "down_blocks.1.attentions.0"
    assert module_at(path, None) == module_at(path, 9) == path
    assert module_at(NO_MODULE, 2) == NO_MODULE


def test_engines_are_paired_by_component_and_the_others_named(plans_of):
    (result,) = compare(plans_of("unet", "vae"), plans_of("vae", "text"), names=("old", "new"))
    assert [engine.component for engine in result.engines] == ["vae"]
    assert (result.baseline, result.candidate, result.removed, result.added) == ("old", "new", ("unet",), ("text",))


@pytest.fixture
def plans_of():
    return lambda *names: [plan(layer("x"), component=name) for name in names]


def test_two_single_engines_are_a_pair_whatever_they_are_called(plans_of):
    (result,) = compare(plans_of("resnet")[0], plans_of("resnet-qat")[0])
    assert len(result.engines) == 1


def test_the_first_of_many_is_the_baseline(plans_of):
    results = compare(*(plans_of("unet") for _ in range(3)))
    assert [(r.baseline, r.candidate) for r in results] == [("A", "B"), ("A", "C")]


@pytest.mark.parametrize(
    ("sides", "slug"),
    [
        ((("unet",),), "compare-sides"),
        ((("unet", "vae"), ("text", "clip")), "compare-components"),
        (((), ("a",)), "compare-components"),
    ],
)
def test_what_cannot_be_compared_is_a_typed_error(plans_of, sides, slug):
    with pytest.raises(ConfigError) as caught:
        compare(*(plans_of(*names) for names in sides))
    assert caught.value.slug == slug


@pytest.fixture
def hostile_comparison(unet, hostile):
    """The plan with hostile names against one where two layers became one and one is new."""
    fused = unet.layers[1].model_copy(
        update={"name": f"{hostile} + attn", "times_ms": (3.0,), "precision": hostile, "nodes": ("q", "a")}
    )
    nodes = [("c",), ("q",), ("a",), ("n",), ("h",), ("f",), ()]
    known = [x.model_copy(update={"nodes": n, "precision": "float32"}) for x, n in zip(unet.layers, nodes, strict=True)]
    before = unet.model_copy(update={"layers": tuple(known)})
    after = unet.model_copy(update={"layers": (known[0], fused, *known[3:], layer(f"={hostile}", 2))})
    return compare(before, after, names=(f"a {hostile}", f"b|{hostile}"))


def test_json_has_all_groups_and_is_valid(hostile_comparison):
    data = json.loads(comparison_to_json(hostile_comparison, gate(hostile_comparison, 3, "module")))
    (engine,) = data["comparisons"][0]["engines"]
    assert Counter(g["by"] for g in engine["groups"]) == {"nodes": 5, "name": 1, "nothing": 1}
    fused = next(g for g in engine["groups"] if len(g["before"]) == 2)
    assert [x["name"] for x in fused["before"]] == ["to_q", "attn"]
    assert fused["delta_ms"] == 1.5
    assert data["checks"][0]["what"] == "whole engine"
    assert data["format"] == 1


def test_markdown_is_short_and_cannot_be_broken_out_of(hostile_comparison):
    text = comparison_to_markdown(hostile_comparison, gate(hostile_comparison, 3))
    assert "2 layers became 1" in text
    assert "<" not in text
    assert len(text) < 5000
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert all(len(re.findall(r"(?<!\\)\|", row)) in (8, 5) for row in rows), "a name cannot open a column"


def test_markdown_of_a_large_engine_fits_a_comment():
    many = [layer(f"{'long' * 30} {i}", 1 + i % 7, (str(i),), f"block.{i}.{'m' * 80}") for i in range(3000)]
    slower = [x.model_copy(update={"times_ms": (9.0,), "precision": "float16"}) for x in many]
    results = compare(plan(*many), plan(*slower))
    text = comparison_to_markdown(results, gate(results, 3, "layer"))
    assert len(text) < 20_000
    assert "more failed" in text


def test_the_page_escapes_names_and_runs_only_its_own_scripts(hostile_comparison, hostile):
    page = render_comparison(hostile_comparison, gate(hostile_comparison, 3, "layer"))
    assert "<img" not in page
    assert hostile not in page
    assert "&lt;/script&gt;&lt;img src=x" in page
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', page)[1]
    assert "default-src 'none'" in policy
    assert "unsafe-inline" not in policy.partition("script-src")[2]
    assert "2 layers became 1" in page
    assert not re.findall(r"<(?:script|link|img|iframe)[^>]+(?:src|href)=", page)


def test_a_page_of_engines_without_times_says_so(untimed):
    page = render_comparison(compare(untimed, untimed))
    assert "No time changed." in page
    assert ">unknown<" in page


@pytest.mark.slow
def test_the_page_in_chromium(driver, hostile_comparison, tmp_path):
    page = tmp_path / "comparison.html"
    page.write_text(render_comparison(hostile_comparison, gate(hostile_comparison, 3, "layer")), encoding="utf-8")
    driver.set_window_size(500, 900)
    driver.get(page.as_uri())
    driver.execute_async_script(
        "const done = arguments[0]; (function look() {"
        " document.documentElement.dataset.ready === 'yes' ? done() : setTimeout(look, 20); })();"
    )
    run = driver.execute_script
    assert run("return document.querySelectorAll('#modules-0 .main-svg .bars .point').length") >= 2
    assert run("return document.images.length") == 0
    assert run("return document.querySelectorAll('.chart a, .chart [onerror]').length") == 0
    shown = "return [...document.querySelectorAll('#groups tbody > tr')].filter((row) => row.offsetParent)"
    assert len(run(shown)) == 7
    script = "const f = document.getElementById('filter'); f.value = arguments[0]; f.dispatchEvent(new Event('input'))"
    run(script, "fused became")
    assert len(run(shown)) == 1
    assert run("return document.getElementById('shown').textContent") == "1 of 7 rows"
    run(script, "")
    after = "#groups thead th:nth-child(4)"
    for order in ("descending", "ascending"):
        run(f"document.querySelector('{after} button').click()")
        assert run(f"return document.querySelector('{after}').ariaSort") == order
        values = run(f"{shown}.map((row) => row.cells[3].dataset.value)")
        known = [float(v) for v in values if v]
        assert known == sorted(known, reverse=order == "descending")
        assert values[-1] == "", "unknown is last in both directions"
    assert run("return document.documentElement.scrollWidth <= innerWidth")
    assert driver.get_log("browser") == []
