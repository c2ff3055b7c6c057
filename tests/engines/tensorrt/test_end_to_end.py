"""From a checkpoint to an image and a report with TensorRT's double, in both versions of its API."""

import json
import shutil

import numpy as np
import pytest
import shared_exports
import torch
from trt import bindings, cuda, use

import sdtrt
from sdtrt import cli
from sdtrt.builder import build
from sdtrt.bundle.bundle import Bundle
from sdtrt.engines.backends.tensorrt import cuda as trt_cuda
from sdtrt.errors import BuildError, EngineError
from sdtrt.pipelines import eager_pipeline
from sdtrt.verification import image_metrics, verify

FAMILIES = ("sd1", "sdxl")
RELEASES = ("10.16.1.11", bindings.NEWEST)
CALL = {"num_inference_steps": 4, "height": 128, "width": 128, "output_type": "np"}

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module", params=RELEASES)
def trt(request, apis, cache):
    """The double, for all tests of one release."""
    with use.tensorrt(request.param, cache):
        import tensorrt

        yield tensorrt


@pytest.fixture(scope="module", params=FAMILIES)
def bundle(request, trt, bundles):
    return bundles(request.param, "tensorrt")


@pytest.fixture
def pipe(bundle):
    made = sdtrt.load(bundle)
    made.set_progress_bar_config(disable=True)
    yield made
    for engine in engines_of(made):
        engine.close()


def engines_of(pipe):
    modules = (getattr(pipe, name, None) for name in ("text_encoder", "text_encoder_2", "unet", "vae"))
    return [engine for module in modules if module is not None for engine in module.engines.values()]


def image(pipe, **call):
    return pipe("a red fox", generator=torch.Generator().manual_seed(1), **CALL, **call).images


def test_the_bundle_says_what_it_was_built_with(bundle, trt):
    for name, component in bundle.manifest.components.items():
        assert component.key["backend"] == f"tensorrt {trt.__version__}"
        assert component.key["device"] == str(trt_cuda.runtime.describe(0))
        record = json.loads((bundle.folder(name) / "engine.json").read_text())
        assert record["tensorrt"] == trt.__version__
        assert 0 <= max(component.parity.values()) < 1e-3


def test_an_image_is_that_of_eager_pytorch(pipe, bundle, models):
    family = next(f for f in FAMILIES if bundle.manifest.model == str(models[f]))
    stock = eager_pipeline.eager(models[family])
    stock.set_progress_bar_config(disable=True)
    assert image_metrics.psnr(image(pipe), image(stock)) >= 40


def test_the_unet_is_replayed_as_a_graph_from_its_third_call_on(pipe):
    cuda.WAITS.clear()
    first = image(pipe)
    counts = pipe.unet.engines["unet"].session.stats.as_json()
    assert counts == {"captured": 1, "replayed": 2, "plain": 2, "refused": {}}
    assert np.array_equal(image(pipe), first)
    assert any(waiter == 0 for waiter, _ in cuda.WAITS)  # the caller's stream waited for the engine's
    assert any(awaited == 0 for _, awaited in cuda.WAITS)  # and the engine's for the caller's


def test_without_capture_the_image_is_the_same_and_the_reason_is_told(pipe, monkeypatch):
    expected = image(pipe)
    monkeypatch.setenv("TENSORRT_DOUBLE_FAULTS", "capture-fails")
    for engine in engines_of(pipe):
        engine.session.weights_changed()
    assert np.array_equal(image(pipe), expected)
    assert "previous error during capture" in str(pipe.unet.engines["unet"].notes())


def test_the_files_of_trtexec_and_trex_are_written(bundle, trt):
    for name in bundle.manifest.components:
        files = {p.name: json.loads(p.read_text()) for p in bundle.folder(name).glob("engine.plan.*.json")}
        assert set(files) == {f"engine.plan.{part}.json" for part in ("graph", "profile", "profile.metadata", "timing")}
        layers = files["engine.plan.graph.json"]
        newer = trt.__version__.startswith("11")
        assert ("I/O Tensors" in layers, "Bindings" in layers) == (newer, not newer)
        count, *records = files["engine.plan.profile.json"]
        assert count == {"count": 2}
        assert {layer["Name"] for layer in layers["Layers"]} <= {r["name"] for r in records}
        assert len(files["engine.plan.timing.json"]) == 2


def test_plans_name_kernels_nodes_modules_and_times(bundle):
    plan = bundle.plan("unet")
    assert plan.backend == "tensorrt"
    timed = [layer for layer in plan.layers if layer.times_ms]
    assert {len(layer.times_ms) for layer in timed} == {2}
    assert {"conv", "gemm", "attention", "norm"} <= {layer.kind for layer in plan.layers}
    assert sum(layer.flops or 0 for layer in plan.layers) == plan.total_flops > 0
    assert any(layer.module == "conv_in" for layer in plan.layers)
    assert len([layer for layer in plan.layers if layer.kind == "attention"]) == attentions(bundle)


def attentions(bundle):
    import onnx

    model = onnx.load(bundle.folder("unet") / "model.onnx", load_external_data=False)
    return sum(node.op_type == "Softmax" for node in model.graph.node)


def test_a_report_is_written(bundle, tmp_path, capsys):
    with pytest.raises(SystemExit) as done:
        cli.main(["analyze", str(bundle.path), "--out", str(tmp_path / "report.html")])
    assert not done.value.code, capsys.readouterr()
    assert "conv_in" in (tmp_path / "report.html").read_text()


def test_verify_passes(bundle):
    assert all(row.passed for row in verify.verify(bundle))


# ------------------------------------------------------------------------------------ what goes wrong


def test_a_bundle_of_another_release_is_refused_with_both_versions(bundle, trt, cache):
    other = next(r for r in RELEASES if r != trt.__version__)
    with use.tensorrt(other, cache), pytest.raises(EngineError) as caught:
        sdtrt.load(Bundle.open(bundle.path))
    assert caught.value.slug == "plan-version"
    assert trt.__version__ in caught.value.received
    assert other in caught.value.received
    assert "sdtrt build" in caught.value.hint


def test_a_bundle_of_another_gpu_is_refused(bundle, monkeypatch):
    monkeypatch.setenv("TENSORRT_DOUBLE_GPU", "Other GPU:9.0")
    with pytest.raises(EngineError) as caught:
        sdtrt.load(bundle)
    assert caught.value.slug == "plan-gpu"
    assert "Other GPU" in caught.value.received
    assert "Double GPU" in caught.value.expected


@pytest.mark.parametrize(
    ("fault", "slug"), [("build-crash", "build-crashed"), ("no-implementation", "build-no-kernel")]
)
def test_a_build_that_fails_leaves_nothing_behind(trt, models, cache, tmp_path, monkeypatch, fault, slug):
    monkeypatch.setenv("TENSORRT_DOUBLE_FAULTS", fault)
    with shared_exports.shared(cache / "exports"), pytest.raises(BuildError) as caught:
        build.build(models["sd1"], tmp_path / "out", backend="tensorrt", profiles=["B=1:1:4,H=64:128:192,W=64:128:192"])
    assert caught.value.slug == slug
    assert not (tmp_path / "out").exists()


def test_any_plan_file_can_be_timed_and_analyzed(bundle, trt, tmp_path, capsys):
    plan = tmp_path / "unet.plan"
    shutil.copyfile(bundle.folder("unet") / "engine.plan", plan)
    words = [
        "analyze",
        "--profile-engine",
        plan,
        "--shapes",
        "sample=2x4x16x16",
        "--runs",
        2,
        "--json",
        tmp_path / "a.json",
    ]
    with pytest.raises(SystemExit) as caught:
        cli.main([str(word) for word in words])
    assert caught.value.code == 0
    written = {path.name for path in tmp_path.glob("unet.plan.*")}
    assert written == {f"unet.plan.{n}.json" for n in ("graph", "profile", "timing", "profile.metadata")} | {
        "unet.plan.json"
    }
    report = json.loads((tmp_path / "a.json").read_text())
    assert report["components"][0]["layers"] > 10
    assert any(layer["time_ms"] for layer in report["layers"])
