"""The backend as the rest of sdtrt sees it: what it needs, what it writes, what it refuses."""

import json
import shutil

import pytest
from trt import bindings, use

from sdtrt import engines
from sdtrt import models as families
from sdtrt.builder import build
from sdtrt.bundle.bundle import Bundle
from sdtrt.engines.backends.tensorrt import cuda
from sdtrt.engines.backends.tensorrt.cuda import CudaRuntime, Device
from sdtrt.engines.backends.tensorrt.engine import BACKEND, TensorRt, env
from sdtrt.errors import BackendUnavailable, EngineError
from sdtrt.shapes.sample_inputs import sample_inputs

SETTINGS = {
    "backend": "tensorrt",
    "profiles": ["B=1:1:2,H=128,W=128"],
    "components": ["text_encoder"],
    "verify_steps": 0,
    "profile_runs": 2,
}


@pytest.fixture(scope="module")
def newest(cache):
    """The double of the newest release, for all tests here."""
    try:
        with use.tensorrt(max(bindings.RELEASES), cache):
            yield
    except bindings.Unreachable as exc:
        pytest.skip(f"NVIDIA's bindings cannot be fetched: {exc}")


@pytest.fixture(scope="module")
def built(newest, models, tmp_path_factory):
    """A bundle of the text encoder alone."""
    base = tmp_path_factory.mktemp("built")
    options = {"timing_cache_folder": str(base / "timing")}
    return build.build(models["sd1"], base / "bundle", options=options, **SETTINGS)


@pytest.fixture
def copy(built, tmp_path):
    """A bundle that a test may change."""
    return Bundle.open(shutil.copytree(built.path, tmp_path / "bundle"))


@pytest.fixture
def load(models):
    """load(bundle, **options): the bundle has one component, so specs come from the model."""

    def make(bundle, **options):
        manifest, backend = bundle.manifest, engines.load("tensorrt")
        context = engines.EngineContext(
            spec=families.load(manifest.family).components(models["sd1"], manifest.precision)["text_encoder"],
            profiles=manifest.shape_profiles,
            options=backend.check_options({**manifest.options, **options}),
            rebuild=f"sdtrt build {manifest.model} --out {bundle.path}",
        )
        return backend.load(bundle.folder("text_encoder"), context)

    return make


def ids(engine, batch=1):
    return sample_inputs(engine.spec, {"B": batch, "H": 128, "W": 128, "T": 77})


def test_files_of_a_component(built):
    files = set(built.manifest.components["text_encoder"].files)
    assert {"engine.plan", "engine.json", "plan.json"} <= files
    assert {f"engine.plan.{r}.json" for r in ("graph", "profile", "profile.metadata", "timing")} <= files
    assert not any("onnx" in f for f in files)


def test_the_record_names_what_the_plan_is_bound_to(built):
    record = json.loads((built.folder("text_encoder") / "engine.json").read_text())
    assert record["tensorrt"] == max(bindings.RELEASES)
    assert (record["gpu"], record["sm"]) == ("Double GPU", "8.9")
    assert record["profiles"] == [{"input_ids": [[1, 77], [1, 77], [2, 77]]}]


def test_the_key_names_version_and_gpu_and_no_option_of_running(built):
    key = built.manifest.components["text_encoder"].key
    assert key["backend"] == f"tensorrt {max(bindings.RELEASES)}"
    assert key["device"] == "Double GPU, sm 8.9"
    assert "optimization_level=3" in key["options"]
    assert "cuda_graphs" not in key["options"]


def test_an_option_of_running_changes_the_manifest_and_builds_nothing(copy, models, monkeypatch):
    monkeypatch.setattr(BACKEND.__class__, "build", None)
    options = {**copy.manifest.options, "cuda_graphs": 0}
    again = build.build(models["sd1"], copy.path, options=options, **SETTINGS)
    assert again.manifest.options["cuda_graphs"] == 0


def test_an_option_of_building_builds_anew(copy, models):
    options = {**copy.manifest.options, "optimization_level": 2}
    again = build.build(models["sd1"], copy.path, options=options, **SETTINGS)
    assert "optimization_level=2" in again.manifest.components["text_encoder"].key["options"]


def test_the_onnx_file_is_kept_where_it_is_asked_for(copy, models):
    options = {**copy.manifest.options, "keep_onnx": True}
    again = build.build(models["sd1"], copy.path, options=options, **SETTINGS)
    assert {"model.onnx", "model.onnx.data"} <= set(again.manifest.components["text_encoder"].files)


def test_seconds_are_those_on_the_gpu(built, load):
    engine = load(built)
    engine(**ids(engine))
    assert engine.seconds == pytest.approx(engine.session.timer.total_ms() / 1e3)
    assert engine.notes() == ()


def test_a_fallback_is_told(built, load, monkeypatch):
    engine = load(built)
    monkeypatch.setenv("TENSORRT_DOUBLE_FAULTS", "not-capturable")
    for _ in range(2):
        engine(**ids(engine))
    (note,) = engine.notes()
    assert "without CUDA graphs" in note


def test_graphs_can_be_switched_off_when_loading(built, load):
    engine = load(built, cuda_graphs=0)
    for _ in range(3):
        engine(**ids(engine))
    assert engine.session.stats.as_json()["captured"] == 0


def test_a_plan_of_another_gpu_is_refused(built, load, monkeypatch):
    monkeypatch.setenv("TENSORRT_DOUBLE_GPU", "Other GPU:9.0")
    with pytest.raises(EngineError) as caught:
        load(built)
    assert caught.value.slug == "plan-gpu"
    assert (caught.value.received, caught.value.expected) == ("Other GPU, sm 9.0", "Double GPU, sm 8.9")
    assert str(built.path) in caught.value.hint


def test_a_plan_of_another_tensorrt_is_refused(copy, load):
    plan = copy.folder("text_encoder") / "engine.plan"
    data = bytearray(plan.read_bytes())
    data[24:28] = bytes([10, 12, 0, 36])
    plan.write_bytes(data)
    with pytest.raises(EngineError) as caught:
        load(copy)
    assert caught.value.slug == "plan-version"
    assert "10.12.0.36" in caught.value.received
    assert max(bindings.RELEASES) in caught.value.received


def test_the_plan_of_another_component_is_refused(copy, load, onnx_plan):
    shutil.copyfile(onnx_plan, copy.folder("text_encoder") / "engine.plan")
    with pytest.raises(EngineError, match="cannot be loaded"):
        load(copy)


@pytest.fixture
def onnx_plan(newest, onnx, tmp_path):
    """A plan of the small network."""
    from trt import small

    from sdtrt.engines.backends.tensorrt.building import isolated_build
    from sdtrt.engines.backends.tensorrt.building.build_messages import BuildJob
    from sdtrt.engines.backends.tensorrt.error_table import ErrorContext
    from sdtrt.engines.backends.tensorrt.options import TrtOptions

    plan = tmp_path / "small.plan"
    job = BuildJob(onnx=str(onnx), plan=str(plan), profiles=(small.RANGES,), options=TrtOptions())
    isolated_build.build_in_subprocess(job, ErrorContext("small", "r"), lambda *_: None)
    return plan


# ---------------------------------------------------------------------------------------------- availability


class NoGpu(CudaRuntime):
    def available(self):
        return False

    def describe(self, index):
        return None


def test_without_the_package_it_says_how_to_get_it():
    why = engines.load("tensorrt").unavailable()
    if not env.importable("tensorrt"):
        assert why.fix == "pip install tensorrt"


def test_without_a_gpu_it_is_unavailable(newest, monkeypatch):
    monkeypatch.setattr(cuda, "runtime", NoGpu())
    assert "no NVIDIA GPU" in engines.load("tensorrt").unavailable().reason
    with pytest.raises(BackendUnavailable, match="no NVIDIA GPU"):
        engines.require("tensorrt")


def test_a_gpu_that_is_not_there_is_named(newest):
    backend = engines.load("tensorrt")
    with pytest.raises(BackendUnavailable) as caught:
        backend.device(backend.options(gpu=7))
    assert caught.value.slug == "gpu-missing"
    assert "gpu 7" in caught.value.received


@pytest.mark.parametrize(("version", "usable"), [("10.11.0.33", False), ("10.12.0.36", True), ("8.6.1", False)])
def test_what_is_too_old_is_unavailable(newest, monkeypatch, version, usable):
    monkeypatch.setattr(TensorRt, "version", lambda self: version)
    assert (engines.load("tensorrt").unavailable() is None) == usable


def test_a_device_reads_as_its_key():
    assert str(Device("NVIDIA L4", "8.9", 58, 24 << 30)) == "NVIDIA L4, sm 8.9"
