"""One way in: bundles, plans, folders and single files of other programs, and lists of all these."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import pytest
from trt_dump import synthetic, write

from sdtrt.analysis import load_plans
from sdtrt.analysis.device_peaks import DevicePeaks
from sdtrt.analysis.load import load
from sdtrt.errors import BundleError, PlanError
from sdtrt.plan.image_timing import EngineCalls, ImageRun


@pytest.fixture
def bundle(tmp_path, unet, manifest):
    (tmp_path / "unet").mkdir()
    unet.save(tmp_path / "unet" / "plan.json")
    (tmp_path / "manifest.json").write_text(manifest.model_dump_json(), encoding="utf-8")
    return tmp_path


@pytest.fixture
def image():
    calls = {"unet": EngineCalls(count=20, total_ms=90.0)}
    return ImageRun(steps=20, images=1, height=512, width=512, wall_ms=100.0, engines=calls)


def test_a_bundle_gives_plans_and_manifest(bundle, unet, manifest):
    assert load_plans(bundle) == ([unet], manifest)
    analysis = load(bundle / "manifest.json")
    assert (analysis.plans, analysis.manifest, analysis.run) == ((unet,), manifest, None)


def test_a_bundle_brings_its_timed_image(bundle, image):
    image.save(bundle / "image.json")
    assert load(bundle).run == image
    other = image.model_copy(update={"steps": 4})
    assert load(bundle, run=other).run == other


def test_a_file_and_a_component_folder_give_one_plan(bundle, unet):
    assert load_plans(str(bundle / "unet" / "plan.json")) == ([unet], None)
    assert load_plans(bundle / "unet") == ([unet], None)


def test_a_saved_plan_may_have_any_name(bundle, unet):
    shutil.copy(bundle / "unet" / "plan.json", bundle / "before.json")
    assert load(bundle / "before.json").plans == (unet,)


def test_a_missing_bundle_is_named(tmp_path):
    with pytest.raises(BundleError, match="no bundle can be read here") as caught:
        load_plans(tmp_path / "nothing")
    assert caught.value.slug == "bundle-missing"


def test_a_missing_plan_is_named(bundle):
    (bundle / "unet" / "plan.json").unlink()
    with pytest.raises(PlanError) as caught:
        load_plans(bundle)
    assert caught.value.slug == "plan-missing"


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(PlanError, match="no such file") as caught:
        load(tmp_path / "x.graph.json")
    assert caught.value.slug == "plan-missing"


@pytest.mark.parametrize("file", ["graph", "profile", "timing", "profile_metadata", "build_metadata"])
def test_any_file_of_an_engine_brings_its_siblings(tmp_path, file):
    dump = write(tmp_path)
    write(tmp_path, name="vae_decoder")
    plans = load(getattr(dump, file)).plans
    assert plans == load(dump.graph).plans
    assert [(p.component, p.runs, p.wall_times_ms is None, p.device is None) for p in plans] == [
        ("unet", 100, False, False)
    ]


def test_a_folder_gives_every_engine_in_it(tmp_path):
    for name in ("vae_decoder", "unet"):
        write(tmp_path, name=name)
    plans = load(tmp_path).plans
    assert [(p.component, p.runs) for p in plans] == [("unet", 100), ("vae_decoder", 100)]


def test_a_folder_of_folders_gives_the_engines_below(tmp_path):
    for name in ("unet", "vae"):
        write(tmp_path / name, name="model")
    assert [p.component for p in load(tmp_path).plans] == ["unet", "vae"]


def test_engines_of_one_name_are_told_apart_by_their_folders(tmp_path):
    for version in ("8", "10"):
        write(tmp_path / version, version)
    analysis = load([tmp_path / "8", tmp_path / "10", tmp_path / "10"])
    assert [p.component for p in analysis.plans] == ["8/unet", "10/unet", "10/unet 2"]
    assert analysis.frame["component"].nunique() == 3


def test_onnx_files_are_joined_by_component(tmp_path):
    first, second = write(tmp_path / "a"), write(tmp_path / "b", name="vae")
    plans = load([first.graph, second.graph], onnx={"unet": first.onnx}).plans
    assert [p.total_flops is None for p in plans] == [False, True]
    plans = load([first.graph, second.graph], onnx=str(first.onnx)).plans
    assert plans[0].total_flops == plans[1].total_flops


def test_a_plan_that_was_saved_can_be_joined_later(tmp_path):
    dump = write(tmp_path / "dump", "8")
    load(dump.graph).plans[0].save(tmp_path / "plan.json")
    late = load(tmp_path / "plan.json", onnx=dump.onnx).plans[0]
    assert late == load(dump.graph, onnx=dump.onnx).plans[0]


def test_peaks_may_be_a_file(tmp_path, unet):
    unet.save(tmp_path / "plan.json")
    peaks = DevicePeaks(device="mine", source="measured", gb_per_s=1.0)
    (tmp_path / "peaks.json").write_text(peaks.model_dump_json())
    assert load(tmp_path / "plan.json", peaks=tmp_path / "peaks.json").peaks == peaks


def test_other_files_in_a_folder_do_no_harm(tmp_path):
    dump = write(tmp_path)
    (tmp_path / "config.json").write_text('{"hidden": 1}')
    (tmp_path / "broken.json").write_text("{")
    assert len(load(tmp_path).plans) == 1
    dump.profile.write_text("{")
    with pytest.raises(PlanError, match="not JSON"):
        load(tmp_path)


@pytest.mark.parametrize("content", [None, "{}", "[]", "3", '{"a": [1]}'])
def test_what_describes_no_engine_is_an_error_that_says_what_would(tmp_path, content):
    if content is not None:
        (tmp_path / "x.json").write_text(content)
    for source in [tmp_path] if content is None else [tmp_path, tmp_path / "x.json"]:
        with pytest.raises(PlanError) as caught:
            load(source)
        assert caught.value.slug == "plan-unknown"
        assert "tensorrt" in caught.value.expected


def test_of_two_files_that_say_the_same_one_is_used_and_the_other_noted(tmp_path):
    dump = write(tmp_path)
    (tmp_path / "unet.onnx.engine.times.json").write_bytes(dump.timing.read_bytes())
    assert load(tmp_path).plans[0].notes == (
        "of several timing files unet.onnx.engine.times.json was used, not unet.onnx.engine.timing.json",
    )


def test_a_saved_plan_of_a_dump_reads_back_as_it_was(tmp_path):
    plan = load(write(tmp_path / "dump", "11").graph).plans[0]
    plan.save(tmp_path / "plan.json")
    assert load(tmp_path / "plan.json").plans == (plan,)


def test_reading_a_dump_needs_no_onnx_and_no_torch(tmp_path):
    path = str(write(tmp_path).graph)
    script = f"import sys; from sdtrt.analysis.load import load; load({path!r}).frame; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert not {"onnx", "onnxruntime", "torch", "tensorrt"} & set(loaded)


def test_three_thousand_layers_are_read_at_once(tmp_path):
    dump = synthetic(tmp_path, 3000)
    analysis = load(dump.graph)
    assert len(analysis.frame) == 3000
    assert analysis.frame["time_ms"].notna().all()
    assert json.loads(dump.graph.read_text())["Layers"][0]["Name"] == analysis.frame["name"][0]
