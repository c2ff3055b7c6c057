"""Memory: foreseen where a graph tells it, found by the build, and the checkpoint gone when the engine is built."""

import platform
import subprocess
import sys
import weakref

import pytest
import torch
from small_checkpoint import make

import sdtrt
from sdtrt import cli, config, engines
from sdtrt import models as families
from sdtrt.builder import memory_estimate
from sdtrt.builder.component_build import ComponentBuild
from sdtrt.builder.planning import plan_build
from sdtrt.engines.backends.onnxruntime.engine import OrtEngine
from sdtrt.export import onnx_export
from sdtrt.shapes.spec import ShapeProfile
from sdtrt.system import process_memory
from sdtrt.verification import component_check, reference_images, reference_outputs, verify

FIXED = ShapeProfile.parse("B=1,H=64,W=64,T=77")


def specs_of(bundle):
    return families.load(bundle.manifest.family).components(bundle.pipeline_folder, bundle.manifest.precision)


def test_without_a_graph_activations_are_unknown(models, tmp_path):
    plan = plan_build(config.load(model=str(models["sd2"]), backend="fake"), tmp_path / "bundle")
    for step in plan.steps:
        (found,) = memory_estimate.expected(step.spec, plan.profiles, None)
        assert (found.activation_opt_bytes, found.activation_max_bytes, found.context_bytes) == (None, None, None)


def test_with_a_graph_other_sizes_are_foreseen(bundles):
    bundle = bundles("sd1", "onnxruntime")
    spec = specs_of(bundle)["vae_decoder"]
    small, large = (ShapeProfile.parse(f"B=1:1:2,H={s},W={s},T=77") for s in (64, 128))
    found = memory_estimate.expected(spec, (small, large), bundle)
    assert [m.profile for m in found] == [str(small), str(large)]
    assert found[1].activation_opt_bytes / found[0].activation_opt_bytes == pytest.approx(4, rel=0.01)
    assert found[0].activation_max_bytes / found[0].activation_opt_bytes == pytest.approx(2, rel=0.01)


def test_a_graph_of_another_model_foretells_nothing(bundles):
    spec = specs_of(bundles("sd1", "onnxruntime"))["unet"]
    path = bundles("sdxl", "onnxruntime").folder("unet") / "engine.onnx"
    assert memory_estimate.of_graph(path, spec, [FIXED])[0].activation_opt_bytes is None


@pytest.fixture(scope="module")
def small(models, tmp_path_factory):
    return make(models["sd2"], tmp_path_factory.mktemp("small") / "model")


@pytest.fixture(scope="module")
def watched(small, tmp_path_factory):
    """A text encoder's bundle, and what was alive of the checkpoint's weights at each stage of its making."""
    backend, bytes_alive = engines.load("onnxruntime"), {}
    kept, sessions = [], weakref.WeakSet()

    def note(when):
        bytes_alive[when] = sum(p.nbytes for p in (ref() for ref in kept) if p is not None)

    with pytest.MonkeyPatch.context() as patch:
        build, load = type(backend).build, type(backend).load
        read, capture, check = ComponentBuild.load, onnx_export.capture, component_check.check_component

        def was_read(self):
            module = read(self)
            kept.extend(weakref.ref(p) for p in module.parameters())
            return module

        def exported(spec, module, *arguments):
            note("exported")
            return capture(spec, module, *arguments)

        def built(self, source, options, folder):
            note("built")
            build(self, source, options, folder)

        def loaded(self, folder, context):
            note("loaded")
            return load(self, folder, context)

        def judged(*arguments):
            note("compared")
            return check(*arguments)

        def opened(self, *arguments, **named):
            session = open_session(self, *arguments, **named)
            sessions.add(session)
            bytes_alive["sessions"] = max(len(sessions), bytes_alive.get("sessions", 0))
            return session

        open_session = OrtEngine._open
        patch.setattr(OrtEngine, "_open", opened)

        patch.setattr(ComponentBuild, "load", was_read)
        patch.setattr(component_check, "check_component", judged)
        patch.setattr(onnx_export, "capture", exported)
        patch.setattr(type(backend), "build", built)
        patch.setattr(type(backend), "load", loaded)
        bundle = sdtrt.build(
            small,
            tmp_path_factory.mktemp("watched") / "bundle",
            components=["text_encoder"],
            profiles=["B=1:1:2,H=64,W=64"],
            precision="fp16",
            profile_runs=1,
        )
    return bundle, bytes_alive


def test_the_checkpoints_weights_are_gone_when_the_engine_is_built(watched):
    _, alive = watched
    assert alive["exported"] > 0
    stages = ("built", "loaded", "compared")
    assert [alive[s] for s in stages] == [0, 0, 0], "one tensor keeps the whole file of weights mapped"
    assert alive["sessions"] == 1, "two of ONNX Runtime hold all weights twice"


def test_verify_has_the_checkpoint_and_the_engine_in_memory_in_turn(watched, monkeypatch):
    alive, kept, sessions = {}, [], weakref.WeakSet()
    compute, check, opened = reference_outputs.compute, component_check.check_component, OrtEngine._open

    def asked(module, *arguments, **named):
        kept.extend(weakref.ref(p) for p in module.parameters())
        alive["asked"] = len(sessions)
        return compute(module, *arguments, **named)

    def judged(engine, *arguments):
        verdict = check(engine, *arguments)
        alive["compared"], alive["weights"] = len(sessions), sum(ref() is not None for ref in kept)
        return verdict

    def open_session(self, *arguments, **named):
        session = opened(self, *arguments, **named)
        sessions.add(session)
        return session

    monkeypatch.setattr(reference_outputs, "compute", asked)
    monkeypatch.setattr(component_check, "check_component", judged)
    monkeypatch.setattr(OrtEngine, "_open", open_session)
    monkeypatch.setattr(reference_images, "compute", lambda *arguments: reference_images.ReferenceImages((), {}, 1))
    monkeypatch.setattr(verify, "check_images", lambda *arguments, **named: verify.ImageCheck(1, (), "fp16", None))
    assert all(row.passed for row in sdtrt.verify(watched[0]))
    assert alive == {"asked": 0, "compared": 1, "weights": 0}
    assert not sessions


def test_the_manifest_says_what_was_found(watched):
    component = watched[0].manifest.components["text_encoder"]
    (found,) = component.memory.profiles
    assert 0 < found.activation_opt_bytes < found.activation_max_bytes
    assert found.context_bytes is None, "ONNX Runtime does not say"
    assert component.memory.build_peak_bytes > 10 * component.weight_bytes, "all of the process"


def test_the_peak_is_that_since_the_reset():
    if process_memory.peak_bytes() is None:
        pytest.skip("this system does not say")
    block = torch.ones(50_000_000)
    high = process_memory.peak_bytes()
    del block
    process_memory.reset_peak()
    assert process_memory.peak_bytes() <= high - 150_000_000


FREED = """
from contextlib import nullcontext
import torch
from sdtrt.system import malloc, process_memory

torch.ones(4_000_000)  # from now on the heap keeps blocks of up to 16 MB
with {context}:
    blocks = [torch.ones(1_000_000) for _ in range(100)]
    high, last = process_memory.peak_bytes(), blocks.pop()
    del blocks
    process_memory.reset_peak()
    print(high - process_memory.peak_bytes())
"""


@pytest.mark.parametrize(("context", "comes_back"), [("malloc.returning()", True), ("nullcontext()", False)])
def test_large_blocks_go_back_as_soon_as_they_are_freed(context, comes_back):
    """In a process of its own: in this one there are holes in the heap, which blocks would come from."""
    if process_memory.peak_bytes() is None or platform.libc_ver()[0] != "glibc":
        pytest.skip("only of glibc's heap is it known")
    script = FREED.format(context=context)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert (int(done.stdout) > 300_000_000) == comes_back


@pytest.fixture
def run(monkeypatch, capsys):
    """run(*arguments): what the command printed."""
    monkeypatch.setenv("COLUMNS", "200")

    def call(*arguments):
        with pytest.raises(SystemExit) as caught:
            cli.main([str(a) for a in arguments])
        assert not caught.value.code
        return capsys.readouterr().out

    return call


def test_the_command_says_that_nothing_is_known_before_and_what_was_found_after(run, models, tmp_path):
    call = ["build", models["sd2"], "--out", tmp_path / "b", "--backend", "fake", "--profile", "B=1,H=64,W=64"]
    before, after = run(*call).split("build 100%")
    assert "memory beside the weights: unknown, there is no graph yet" in before
    found = after.split("memory of")[1]
    *_, peak, unit = next(line for line in found.splitlines() if line.startswith("unet ")).split()
    assert float(peak) > 0
    assert unit in ("MB", "GB")


def test_a_dry_run_over_a_bundle_shows_a_row_for_every_profile(run, models, bundles):
    call = ["build", models["sd1"], "--out", bundles("sd1").path, "--dry-run"]
    text = run(*call, "--profile", "B=1,H=64,W=64", "--profile", "B=1,H=128,W=128")
    rows = [line.split() for line in text.split("memory of")[1].splitlines() if line.startswith("vae_decoder")]
    small, large = (float(row[3]) for row in rows)
    assert [row[1:3] for row in rows] == [["profile", "1"], ["profile", "2"]]
    assert large / small == pytest.approx(4, rel=0.1)
