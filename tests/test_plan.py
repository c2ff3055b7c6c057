"""Plans: what is written can be read, what is wrong is named, and sums over layers equal sums over nodes."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdtrt.errors import PlanError
from sdtrt.plan import KINDS, Layer, NodeCost, Plan


def plan(*layers):
    return Plan(
        component="unet",
        backend="fake",
        backend_version="1",
        device="none",
        precision="float32",
        sizes={"B": 1},
        layers=layers,
    )


def test_round_trip(tmp_path):
    original = plan(Layer(name='a "quoted" </script> näme', kind="conv", op="Conv", times_ms=(1.0, 3.0, 2.0)))
    original.save(tmp_path / "plan.json")
    assert Plan.load(tmp_path / "plan.json") == original
    assert original.layers[0].time_ms == 2.0


def test_unknown_stays_unknown():
    layer = plan(Layer(name="a", kind="other", op="?", nodes=("missing",))).with_costs({}).layers[0]
    assert (layer.flops, layer.bytes_moved, layer.weight_bytes, layer.time_ms) == (None, None, None, None)


@given(st.lists(st.sets(st.integers(0, 9), max_size=5), min_size=1, max_size=8), st.data())
def test_costs_over_layers_equal_costs_over_their_nodes(groups, data):
    costs = {
        f"n{i}": NodeCost(
            name=f"n{i}",
            op="Conv",
            kind="conv",
            module=f"m{i}",
            flops=720720 * data.draw(st.integers(0, 9)),  # divides by any number of sharers
            bytes_moved=0,
            weight_bytes=0,
        )
        for i in range(10)
    }
    layers = [Layer(name=str(i), kind="conv", op="Conv", nodes=tuple(f"n{n}" for n in g)) for i, g in enumerate(groups)]
    priced = plan(*layers).with_costs(costs)
    assert sum(x.flops or 0 for x in priced.layers) == sum(costs[f"n{n}"].flops for n in set().union(*groups))
    assert priced.total_flops == sum(c.flops for c in costs.values())


@pytest.mark.parametrize(
    ("text", "slug"),
    [
        ("", "plan-json"),
        ("{", "plan-json"),
        ("[]", "plan-format"),
        ('{"format": 99}', "plan-format"),
        ('{"format": 1}', "plan-field"),
        ("[" * 100_000, "plan-json"),
    ],
    ids=["empty", "torn", "list", "version", "fields", "deep"],
)
def test_damaged_files(tmp_path, text, slug):
    path = tmp_path / "plan.json"
    path.write_text(text)
    with pytest.raises(PlanError) as caught:
        Plan.load(path)
    assert caught.value.slug == slug


def test_a_wrong_field_is_named_with_its_place(tmp_path):
    data = json.loads(plan(Layer(name="a", kind="conv", op="Conv")).model_dump_json())
    data["layers"][0]["kind"] = "magic"
    path = tmp_path / "plan.json"
    path.write_text(json.dumps(data))
    with pytest.raises(PlanError, match=r"layers\.0\.kind") as caught:
        Plan.load(path)
    assert all(kind in caught.value.expected for kind in KINDS)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(PlanError, match=r"nowhere\.json"):
        Plan.load(tmp_path / "nowhere.json")
