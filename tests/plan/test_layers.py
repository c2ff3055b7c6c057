"""Plans: what is written can be read, what is wrong is named, what is not known stays unknown."""

import json

import pytest

from sdtrt.errors import PlanError
from sdtrt.plan.layers import KINDS, Layer, Plan, TensorInfo, Timing


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


def test_what_is_not_known_is_not_zero():
    tensor = TensorInfo(name="x", shape=(2, None), dtype="float16")
    assert tensor.nbytes is None
    assert TensorInfo(name="x", shape=(2, 3), dtype="float7").nbytes is None
    assert TensorInfo(name="x", shape=(3, 3), dtype="int4").nbytes == 5
    layer = Layer(name="a", kind="other", op="?", inputs=(tensor,))
    assert (layer.io_bytes, layer.time_ms) == (None, None)


def test_a_tensor_that_is_read_twice_is_moved_once():
    x, y = (TensorInfo(name=n, shape=(4,), dtype="float32") for n in "xy")
    assert Layer(name="a", kind="other", op="?", inputs=(x, x), outputs=(y,)).io_bytes == 32


@pytest.mark.parametrize(
    ("timing", "expected"),
    [({"mean_ms": 2.0, "median_ms": 1.0}, 1.0), ({"mean_ms": 2.0}, 2.0), ({"total_ms": 9.0}, None)],
)
def test_a_recorded_timing_stands_for_runs_that_were_not(timing, expected):
    assert Layer(name="a", kind="other", op="?", timing=Timing(**timing)).time_ms == expected


@pytest.mark.parametrize(
    ("text", "slug"),
    [
        ("", "plan-json"),
        ("{", "plan-json"),
        ("[]", "plan-format"),
        ('{"format": 99}', "plan-format"),
        ('{"format": 2}', "plan-field"),
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
