"""Builds: what is reused, why something is not, and what is left when a build fails."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import namedtuple

import pytest
from locations import ROOT

import sdtrt
from sdtrt import config, engines
from sdtrt.builder.build import run
from sdtrt.builder.build_plan import forecast
from sdtrt.bundle.bundle import Bundle
from sdtrt.bundle.staging import Staging
from sdtrt.errors import BuildError, BundleError, ConfigError, ModelError, ShapeError, VerifyError
from sdtrt.pipelines import eager_pipeline
from sdtrt.plan import image_timing
from sdtrt.plan.image_timing import ImageRun
from sdtrt.verification import image_metrics

SCRIPT = ROOT / "scripts" / "build_engines.py"
COMPONENTS = {"text_encoder", "unet", "vae_decoder", "vae_encoder"}


def look(model, out, **settings):
    """{component: (action, reasons)} of a forecast."""
    recipe = config.load(model=str(model), **{"backend": "fake"} | settings)
    return {s.spec.name: (s.action, s.reasons) for s in forecast(recipe, out).steps}


@pytest.fixture
def built(models, tmp_path):
    out = tmp_path / "bundle"
    sdtrt.build(models["sd1"], out, backend="fake")
    return out


def test_everything_is_built_once(models, built):
    before = (built / "manifest.json").stat().st_mtime_ns
    assert {a for a, _ in look(models["sd1"], built).values()} == {"reuse"}
    sdtrt.build(models["sd1"], built, backend="fake")
    assert (built / "manifest.json").stat().st_mtime_ns == before


def test_a_bundle_needs_no_checkpoint(bundle_copy):
    pipe = sdtrt.load(bundle_copy("sd1", "fake"))
    pipe.set_progress_bar_config(disable=True)
    assert pipe("x", num_inference_steps=1).images[0].size == (128, 128)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"precision": "fp16"}, "precision: fp32 -> fp16"),
        ({"profiles": ["B=2:2:8,H=128,W=128"]}, "profiles: B=1:1:4"),
        ({"opset": 21}, "opset: 20 -> 21"),
        ({"backend": "eager"}, f"backend: fake 1 -> eager {engines.load('eager').version()}"),
    ],
)
def test_a_changed_key_is_told_field_by_field(models, built, change, reason):
    for action, reasons in look(models["sd1"], built, **change).values():
        assert action == "build"
        assert any(r.startswith(reason) for r in reasons)


def test_only_what_depends_on_changed_weights_is_rebuilt(retrained, built):
    actions = {n: a for n, (a, _) in look(retrained, built).items()}
    assert actions == dict.fromkeys(COMPONENTS, "reuse") | {"unet": "build"}
    kept = (built / "vae_decoder" / "engine.json").stat().st_ino
    bundle = sdtrt.build(retrained, built, backend="fake")
    assert (bundle.path / "vae_decoder" / "engine.json").stat().st_ino == kept


def test_force_builds_anew(models, built):
    recipe = config.load(model=str(models["sd1"]), backend="fake")
    assert {s.action for s in forecast(recipe, built, force=True).steps} == {"build"}


def test_one_component_can_be_built_alone_and_the_rest_is_kept(models, built, tmp_path):
    only = sdtrt.build(models["sd1"], tmp_path / "only", backend="fake", components=["vae_decoder"])
    assert set(only.manifest.components) == {"vae_decoder"}
    whole = sdtrt.build(models["sd1"], built, backend="fake", components=["vae_decoder"], force=True)
    assert set(whole.manifest.components) == COMPONENTS
    with pytest.raises(ConfigError, match="no such component"):
        sdtrt.build(models["sd1"], tmp_path / "x", backend="fake", components=["unets"])


def test_profiles_are_checked_before_anything_is_built(models, tmp_path):
    with pytest.raises(ShapeError, match="divisible by 8"):
        sdtrt.build(models["sd1"], tmp_path / "b", backend="fake", profiles=["H=100,W=128"])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("model", "slug"),
    [
        ("no/such/thing", "model-missing"),
        ("nothing", "model-missing"),
        ("weights.ckpt", "model-pickle"),
        ("weights.safetensors", "model-missing"),
        ("owner/name", "model-hub"),
    ],
)
def test_models_that_cannot_be_had(tmp_path, monkeypatch, model, slug):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError) as caught:
        sdtrt.build(model, tmp_path / "bundle", backend="fake")
    assert caught.value.slug == slug
    assert not list(tmp_path.iterdir())


def test_a_torn_single_file_is_named(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"torn")
    with pytest.raises(ModelError) as caught:
        sdtrt.build(path, tmp_path / "bundle", backend="fake")
    assert caught.value.slug == "model-single-file"


def test_pickled_weights_are_never_loaded(models, tmp_path):
    model = shutil.copytree(models["sd1"], tmp_path / "model")
    weights = model / "unet" / "diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_suffix(".bin"))
    with pytest.raises(ModelError, match=r"never loaded|pickle"):
        sdtrt.build(model, tmp_path / "bundle", backend="eager")


def test_another_kind_of_pipeline_is_refused(models, tmp_path):
    model = shutil.copytree(models["sd1"], tmp_path / "model")
    index = json.loads((model / "model_index.json").read_text())
    (model / "model_index.json").write_text(json.dumps(index | {"_class_name": "FluxPipeline"}))
    with pytest.raises(ModelError) as caught:
        sdtrt.build(model, tmp_path / "bundle", backend="fake")
    assert caught.value.slug == "model-family"


def test_a_foreign_folder_is_never_replaced(models, tmp_path):
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "dear.txt").write_text("keep me")
    with pytest.raises(BundleError, match="not a bundle"):
        sdtrt.build(models["sd1"], tmp_path / "letters", backend="fake")
    assert (tmp_path / "letters" / "dear.txt").read_text() == "keep me"


def test_a_full_disk_is_foreseen(models, tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(1, 1, 1000))
    with pytest.raises(BuildError) as caught:
        sdtrt.build(models["sd1"], tmp_path / "bundle", backend="fake")
    assert caught.value.slug == "disk-full"


def test_a_disk_that_fills_up_keeps_what_was_finished(models, tmp_path, monkeypatch):
    backend = engines.load("fake")

    def build(source, options, folder):
        if source.spec.name == "vae_decoder":
            raise OSError(errno.ENOSPC, "No space left on device", str(folder))
        type(backend).build(backend, source, options, folder)

    monkeypatch.setattr(backend, "build", build, raising=False)
    out = tmp_path / "bundle"
    with pytest.raises(BuildError, match="No space left"):
        sdtrt.build(models["sd1"], out, backend="fake")
    assert not out.exists()
    assert set(Staging(out).finished()) == {"text_encoder", "unet"}
    monkeypatch.undo()
    actions = {n: a for n, (a, _) in look(models["sd1"], out).items()}
    assert actions == {"text_encoder": "resume", "unet": "resume", "vae_decoder": "build", "vae_encoder": "build"}
    assert set(sdtrt.build(models["sd1"], out, backend="fake").manifest.components) == COMPONENTS


def test_an_interrupted_build_says_that_it_resumes_and_does(models, tmp_path):
    """`tests/test_kill.py` has the kills."""
    out = tmp_path / "bundle"
    command = [sys.executable, SCRIPT, models["sd1"], "--out", out, "--backend", "eager"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    deadline = time.monotonic() + 240
    while "text_encoder" not in Staging(out).finished() and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGINT)
    errors = process.communicate()[1]
    assert process.returncode == 130
    assert "Traceback (most recent call last)" not in errors or "Exception ignored" in errors
    assert "resumes" in errors
    assert not out.exists()
    assert look(models["sd1"], out, backend="eager")["text_encoder"][0] == "resume"
    bundle = sdtrt.build(models["sd1"], out, backend="eager", profile_runs=1, verify_steps=0)
    assert set(bundle.manifest.components) == COMPONENTS
    assert not Staging(out).path.exists()


def test_an_engine_that_computes_nonsense_is_never_put_in_place(models, tmp_path, monkeypatch):
    monkeypatch.setattr(engines.load("fake"), "is_numeric", True)
    monkeypatch.setattr(engines.load("fake"), "input_format", "module")
    with pytest.raises(VerifyError) as caught:
        sdtrt.build(models["sd1"], tmp_path / "bundle", backend="fake")
    assert caught.value.slug == "verify-component"
    assert not (tmp_path / "bundle").exists()


def test_an_image_that_differs_keeps_the_bundle_out(models, tmp_path, monkeypatch):
    monkeypatch.setattr(image_metrics, "psnr", lambda image, reference: 12.0)
    with pytest.raises(VerifyError) as caught:
        sdtrt.build(models["sd1"], tmp_path / "bundle", backend="eager", profile_runs=1, verify_steps=1)
    assert caught.value.slug == "verify-image"
    assert not (tmp_path / "bundle").exists()


def test_progress_only_goes_forward(models, tmp_path):
    seen = []
    sdtrt.build(models["sd1"], tmp_path / "b", backend="fake", progress=lambda *report: seen.append(report))
    shares = [s for _, s in seen]
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    assert all(any(label.startswith(c) for label, _ in seen) for c in COMPONENTS)


def test_the_manifest_holds_what_was_done(bundles):
    bundle = bundles("sd1", "onnxruntime")
    for name, component in bundle.manifest.components.items():
        bundle.check_files(name)
        assert component.seconds["export"] > 0
        assert [p.name for p in component.passes] == list(engines.load("onnxruntime").passes)
        assert max(component.parity.values()) < 1e-3
    assert bundle.manifest.image["psnr_db"] >= 40
    timing = ImageRun.load(bundle.path / image_timing.FILE)
    assert (timing.steps, timing.engines["unet"].count) == (4, 4)
    assert sum(calls.total_ms for calls in timing.engines.values()) < timing.wall_ms
    assert bundle.manifest.environment["packages"]["torch"]
    assert Bundle.open(bundle.path).manifest == bundle.manifest


def test_verify_passes_a_good_bundle_and_finds_other_weights(bundles, retrained):
    rows = sdtrt.verify(bundles("sd1"), steps=2)
    assert all(r.passed for r in rows)
    assert {r.what.split()[0] for r in rows} == COMPONENTS | {"image,"}
    assert any("guidance off" in r.what for r in rows)  # the sizes of the build's own gate
    assert {f"unet at an image, seed {seed}, call 2" for seed in (0, 1)} <= {r.what for r in rows}
    with pytest.raises(VerifyError, match="not those"):
        sdtrt.verify(bundles("sd1"), model=str(retrained))


def test_builder_run_is_what_a_forecast_says(models, tmp_path):
    plan = forecast(config.load(model=str(models["sd1"]), backend="fake"), tmp_path / "b")
    assert plan.new_bytes == sum(s.weight_bytes for s in plan.steps)
    assert set(run(plan, tmp_path / "b").manifest.components) == {s.spec.name for s in plan.steps}


def test_a_single_file_is_converted_once_by_diffusers_own_loader(models, tmp_path, monkeypatch):
    import diffusers
    from safetensors.torch import load_file, save_file

    calls = []

    def from_single_file(path, **kwargs):  # its configs come from the hub, which tests do not reach
        calls.append(path)
        return eager_pipeline.eager(models["sd1"])

    monkeypatch.setattr(diffusers.StableDiffusionPipeline, "from_single_file", from_single_file)
    checkpoint = tmp_path / "model.safetensors"
    save_file(load_file(models["sd1"] / "unet" / "diffusion_pytorch_model.safetensors"), checkpoint)
    for _ in range(2):
        sdtrt.build(checkpoint, tmp_path / "bundle", backend="fake")
    assert calls == [str(checkpoint)]
    assert {p.name for p in tmp_path.iterdir()} >= {"model.safetensors", "model.diffusers", "bundle"}
