"""What the report's graph is drawn from: a module tree that opens small, for every kind of plan."""

from __future__ import annotations

import json

import pytest

from sdtrt.analysis.graph.data import graph_data
from sdtrt.analysis.session import Analysis
from sdtrt.plan.layers import Layer, Plan, TensorInfo

HOSTILE = "</script>\x1e\ud800" + "x" * 5000


def layer(name, module=None, reads=(), writes=(), **more):
    inputs = tuple(TensorInfo(name=read, shape=(4, 8), dtype="float16") for read in reads)
    outputs = tuple(TensorInfo(name=write, shape=(4, 8), dtype="float16") for write in writes)
    more = {"kind": "conv", "op": "Conv", **more}
    return Layer(name=name, module=module, inputs=inputs, outputs=outputs, **more)


def plan(*layers, component="unet"):
    about = {"backend": "b", "backend_version": None, "device": None, "precision": None}
    return Plan(component=component, layers=layers, **about)


def data(*plans):
    found = graph_data(Analysis(plans))["plans"]
    return found[0] if len(plans) == 1 else found


def boxes(found):
    """Labels of what is seen at first, groups with a colon."""
    groups, owners = found["groups"], found["layers"]["group"]
    seen = {0}
    for number, group in enumerate(groups):
        if group["open"] and group["parent"] in seen:
            seen.add(number)
    visible = [f"{g['label']}:" for n, g in enumerate(groups) if g["parent"] in seen and n not in seen]
    return visible + [label for label, owner in zip(found["layers"]["label"], owners, strict=True) if owner in seen]


def test_a_unet_opens_at_its_modules():
    steps = ["resnets.0.conv1", "resnets.0.conv2", "attentions.0.proj_in", "attentions.0.proj_out"]
    blocks = [f"{side}_blocks.{number}" for side in ("down", "up") for number in range(4)]
    layers = [layer(f"{block}/{step}", f"{block}.{step}") for block in blocks for step in steps]
    found = data(plan(layer("/conv_in/Conv", "conv_in"), *layers, layer("lost"), layer("lost 2")))
    assert boxes(found) == [*(f"{block}:" for block in blocks), "(no module):", "conv_in · Conv"]
    paths = [group["path"] for group in found["groups"]]
    assert "down_blocks.0.resnets.0" in paths


def test_an_engine_that_is_one_module_opens_further():
    parts = [f"encoder.layers.{number}.{part}" for number in range(5) for part in ("norm", "mlp", "attn")]
    found = data(plan(*(layer(part, part) for part in parts), component="text_encoder"))
    assert boxes(found)[1] == "layers.1:"
    assert len(boxes(found)) < 30


def test_a_group_is_never_a_box_in_a_box():
    found = data(
        plan(layer("a", "down.only.child"), layer("b", "down.only.child"), layer("c", "up.single"), layer("d"))
    )
    assert [group["label"] for group in found["groups"]] == ["unet", "down.only.child"]
    assert found["layers"]["label"] == ["a", "b", "up.single · c", "(no module) · d"]


@pytest.mark.parametrize("count", [31, 36, 300, 3000])
def test_an_engine_without_modules_opens_as_runs(count):
    layers = [layer(f"Conv_{n}", reads=[f"t{n}"], writes=[f"t{n + 1}"]) for n in range(count)]
    found = data(plan(*layers))
    assert 4 < len(boxes(found)) <= 25
    assert boxes(found)[0].startswith("layers 1 to ")
    children = [0] * len(found["groups"])
    for parent in [group["parent"] for group in found["groups"][1:]] + found["layers"]["group"]:
        children[parent] += 1
    assert max(children) <= 30, "no click shows hundreds of boxes"
    assert min(children) >= 2


def test_many_layers_of_one_module_are_cut_too():
    found = data(plan(*(layer(f"n{n}", "conv_in") for n in range(100)), layer("other", "conv_out")))
    paths = [group["path"] for group in found["groups"]]
    assert paths[1] == "conv_in"
    assert paths[2].startswith("conv_in, layers 1 to ")


def test_groups_come_before_what_is_in_them_and_every_layer_has_one():
    layers = [layer(f"{n}", f"a.{n % 3}.b{n % 2}.c{n % 5}") for n in range(60)]
    found = data(plan(*layers))
    assert all(group["parent"] < number for number, group in enumerate(found["groups"]))
    assert len(found["layers"]["group"]) == 60
    assert set(found["layers"]["group"]) <= set(range(len(found["groups"])))


def test_columns_are_the_frames_and_the_unknown_is_null():
    found = data(plan(layer("a", "m.x", times_ms=(1.0, 3.0), flops=10, kernel="xmma"), layer("b", "m.y")))
    layers = found["layers"]
    assert layers["ms"] == [2.0, None]
    assert (layers["flops"], layers["kernel"]) == ([10, None], ["xmma", None])
    assert layers["headroom"] == [None, None]
    assert {len(column) for column in layers.values()} == {2}


def test_edges_and_tensors_are_numbered():
    found = data(plan(layer("a", "m", ["x"], ["t"]), layer("b", "m", ["t"], ["y"])))
    ((source, target, number),) = found["edges"]
    assert (source, target) == (0, 1)
    tensors = found["tensors"]
    assert (tensors["name"][number], tensors["type"][number], tensors["bytes"][number]) == ("t", "4x8 float16", 64)
    assert [tensors["name"][n] for n in found["layers"]["inputs"][1]] == ["t"]
    chain = data(plan(layer("a"), layer("b")))
    assert chain["edges"] == [[0, 1, None]]


def test_plans_of_one_name_keep_their_own_figures():
    first, second = (plan(layer("a", times_ms=(ms,))) for ms in (1.0, 2.0))
    assert [each["layers"]["ms"] for each in data(first, second)] == [[1.0], [2.0]]


def test_hostile_text_is_cut_and_fits_into_json():
    deep = layer(HOSTILE, ".".join("abc" * 200), [HOSTILE], [HOSTILE + "y"], kernel=HOSTILE, nodes=(HOSTILE,) * 500)
    text = json.dumps(data(plan(deep, layer("b", HOSTILE), layer("c", HOSTILE))), allow_nan=False)
    assert len(text) < 15000
    assert text.encode("utf-8")
    assert graph_data(Analysis(()))["plans"] == []
    assert data(plan())["groups"][0]["label"] == "unet"
