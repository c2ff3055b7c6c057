"""An engine with several optimization profiles is read one profile at a time."""

from __future__ import annotations

import json

import inspector_text
import pytest
from trt_dump import write

from sdtrt.analysis.load import load
from sdtrt.errors import PlanError
from sdtrt.readers.formats.tensorrt.blocks import blocks


def names(block):
    return [layer["Name"] for layer in block]


def layer(name, *tensors):
    return {"Name": name, "Inputs": [{"Name": t} for t in tensors]}


def test_an_engine_without_tags_is_one_block():
    assert blocks([layer("a"), layer("b_myl3_1")]) == [[layer("a"), layer("b_myl3_1")]]


def test_a_tag_may_stand_inside_a_name_or_have_two_digits():
    tagged = layer("node_linear [profile 10]_myl11_2")
    found = blocks([layer("a"), tagged])
    assert (len(found), names(found[0]), names(found[10])) == (11, ["a"], [tagged["Name"]])


def test_a_layer_without_a_tag_belongs_to_its_region():
    kernels = [layer("__myl_Cast_myl5_0", "x"), layer("__myl_Add_myl5_1"), layer("last")]
    others = [layer("__myl_Cast_myl11_0"), layer("__myl_Add_myl11_1", "x [profile 1]")]
    assert [names(b) for b in blocks(kernels + others)] == [names(kernels), names(others)]


def test_blocks_of_equal_size_settle_what_no_tag_tells():
    first, second = (
        [layer("a"), layer("b"), layer("c")],
        [layer("shape"), layer("b [profile 1]"), layer("c [profile 1]")],
    )
    assert [names(b) for b in blocks(first + second)] == [names(first), names(second)]


@pytest.mark.parametrize("version", ["8", "10", "11"])
def test_each_profile_has_every_layer_once(tmp_path, version):
    one = load(write(tmp_path / "one", version).graph).plans[0]
    dump = write(tmp_path / "two", version, profiles=2, active=1)
    for profile in (0, 1):
        plan = load(dump.graph, profile=profile).plans[0]
        assert [x.op for x in plan.layers] == [x.op for x in one.layers]
        assert f"2 optimization profiles; this is number {profile}" in " ".join(plan.notes)
        assert all((x.timing is not None) is (profile == 1) for x in plan.layers)
        assert plan.inputs == one.inputs


def test_times_of_another_profile_are_left_out_and_named(tmp_path):
    plan = load(write(tmp_path, "10", profiles=2, active=1).graph).plans[0]
    assert all(x.time_ms is None for x in plan.layers)
    assert "those of optimization profile 1" in plan.notes[-1]


def test_a_profile_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(PlanError) as caught:
        load(write(tmp_path, "10", profiles=2).graph, profile=2)
    assert (caught.value.slug, caught.value.expected) == ("plan-profile", "0 to 1")


def test_a_real_engine_of_two_profiles_is_split(engine_dumps, tmp_path):
    text = (engine_dumps / "trt10.16-mnist" / "inspector-two-profiles.txt").read_text()
    path = tmp_path / "mnist.graph.json"
    path.write_text(json.dumps({"Layers": inspector_text.layers(text), "Bindings": ["x", "y", "z"]}))
    plans = [load(path, profile=p).plans[0] for p in (0, 1)]
    assert [len(p.layers) for p in plans] == [13, 13]
    assert [x.kernel for x in plans[0].layers] == [x.kernel for x in plans[1].layers]
    assert [x.nodes for x in plans[0].layers] == [x.nodes for x in plans[1].layers]
    assert not any("[profile" in x.name or "_myl11" in x.name for x in plans[0].layers)
    assert [(t.name, t.shape, t.dtype) for t in plans[1].inputs] == [("x", (1, 1, 28, 28), "float32")]
    assert [t.name for t in plans[1].outputs] == ["y", "z"]
    softmax = plans[0].layers[9]
    assert (softmax.kind, softmax.nodes, softmax.precision) == ("norm", ("node_softmax",), "float16")
