"""Sizes on every backend: which profile serves a call, a batch in parts, what is outside, and what can be done then."""

import re
import shutil
from contextlib import ExitStack
from dataclasses import replace

import pytest
import torch
from backends import usable

import sdtrt
from sdtrt import engines
from sdtrt import models as families
from sdtrt.builder import add_profiles
from sdtrt.bundle.bundle import Bundle
from sdtrt.bundle.staging import Staging
from sdtrt.engines import accuracy
from sdtrt.engines.backends.tensorrt.running import optimization_profiles
from sdtrt.engines.batch_split import CallStats
from sdtrt.errors import BundleError, ConfigError, FallbackWarning, ShapeError, Unsupported, VerifyError
from sdtrt.pipelines import eager_pipeline, unbuilt_sizes
from sdtrt.pipelines.engine_loading import LoadOptions, load_engines
from sdtrt.shapes.sample_inputs import sample_inputs
from sdtrt.shapes.spec import ShapeProfile
from sdtrt.verification import image_metrics

COMPONENTS = ("text_encoder", "unet", "vae_decoder", "vae_encoder")
# Inductor compiles one package for each size, minutes in all; it chooses by the same code.
NAMES = [n for n in engines.names() if n != "inductor"]
RANGED = [n for n in NAMES if n not in ("eager", "onnxruntime")]  # built for their ranges and no others
# A bucket for one small image beside a wide range, best at another size.
BUCKETS = ("B=1,H=64,W=64", "B=1:1:2,H=64:128:192,W=64:128:192")

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module", params=NAMES)
def backend(request, cache):
    with usable(request.param, cache) as found:
        yield found


def spec_of(bundle, component):
    return families.load(bundle.manifest.family).components(bundle.pipeline_folder, "fp32")[component]


def context(bundle, backend, component, *profiles):
    default = bundle.manifest.shape_profiles[0]
    parsed = tuple(ShapeProfile.parse(p).with_defaults(default) for p in profiles) or bundle.manifest.shape_profiles
    options = backend.check_options(bundle.manifest.options)
    return engines.EngineContext(spec_of(bundle, component), parsed, options)


@pytest.fixture(scope="module")
def buckets(bundles, backend, tmp_path_factory):
    """A VAE decoder with both BUCKETS, loaded once; only an engine with ranges inside must be built for them."""
    bundle = bundles("sd1", backend.name)
    ready, folder = context(bundle, backend, "vae_decoder", *BUCKETS), bundle.folder("vae_decoder")
    if backend.name == "tensorrt":
        work, made = (tmp_path_factory.mktemp(name) for name in ("graph", "decoder"))
        for file in folder.glob("model.onnx*"):
            shutil.copyfile(file, work / file.name)
        source = engines.Source(ready.spec, torch.nn.Module(), ready.profiles, work / "model.onnx")
        backend.build(source, ready.options, made)
        folder = made
    engine = backend.load(folder, ready)
    yield engine
    engine.close()


@pytest.fixture
def bucketed(buckets):
    """That engine as if no call had been made yet."""
    buckets.call_stats, buckets.calls = CallStats(buckets.sizes.profiles), 0
    return buckets


def latents(batch, height, width, seed=0):
    return {"latent_sample": torch.randn(batch, 4, height // 8, width // 8, generator=torch.manual_seed(seed))}


def inputs_at(spec, batch, height=64, width=64):
    return sample_inputs(spec, {"B": batch, "H": height, "W": width, "T": 77})


# ---------------------------------------------------------------------------------------------- the nearest profile


def test_the_nearest_profile_serves_whatever_came_before(bucketed):
    served_by = {(1, 64, 64): 0, (2, 64, 64): 1, (1, 64, 72): 1, (1, 128, 128): 1}
    for before in ((1, 64, 64), (1, 128, 64)):
        bucketed(**latents(*before))
        assert {s: BUCKETS.index(str(bucketed.profile_for(latents(*s)))) for s in served_by} == served_by


def test_notes_and_plans_say_which_profile_served(bucketed):
    engine = bucketed
    for size in ((1, 64, 64), (1, 64, 64), (1, 192, 64)):
        engine(**latents(*size))
    assert engine.notes()[:2] == (f"2 calls in profile {BUCKETS[0]}", f"1 call in profile {BUCKETS[1]}")
    plan = engine.profile(latents(1, 64, 64), {"B": 1, "H": 64, "W": 64}, 1)
    assert f"timed in profile {BUCKETS[0]}" in plan.notes


def test_tensorrt_runs_the_profile_that_is_named(bucketed, backend, monkeypatch):
    if backend.name != "tensorrt":
        pytest.skip("only its engines have profiles inside")
    choose, chosen = optimization_profiles.choose, []
    monkeypatch.setattr(optimization_profiles, "choose", lambda *call: chosen.append(choose(*call)) or chosen[-1])
    for size in ((1, 72, 64), (1, 64, 64), (2, 64, 64)):
        bucketed(**latents(*size))
    assert chosen == [1, 0, 1]


# ---------------------------------------------------------------------------------------------- batches in parts


@pytest.mark.parametrize(("batch", "height", "parts"), [(5, 64, (2, 2, 1)), (3, 72, (2, 1))])
def test_a_larger_batch_runs_in_few_even_parts(bucketed, batch, height, parts):
    whole = latents(batch, height, 64)
    got = bucketed(**whole)["image"]
    assert bucketed.calls == len(parts)
    assert f"1 call with a larger batch than was built, run in {len(parts)} parts" in bucketed.notes()
    pieces = [bucketed(latent_sample=piece)["image"] for piece in whole["latent_sample"].split(parts)]
    assert torch.equal(got, torch.cat(pieces))


def test_a_batch_that_was_built_is_not_split(bucketed):
    bucketed(**latents(2, 64, 64))
    assert (bucketed.calls, "larger batch" in str(bucketed.notes())) == (1, False)


@pytest.mark.parametrize("component", COMPONENTS)
def test_rows_of_a_split_batch_keep_their_conditioning(bundles, backend, models, component):
    bundle = bundles("sd1", backend.name)
    engine = backend.load(bundle.folder(component), context(bundle, backend, component))
    inputs = inputs_at(engine.spec, 5)  # ten rows of the U-Net, each with its own timestep
    outputs = engine(**inputs)
    for tensor in engine.spec.outputs:
        assert outputs[tensor.name].shape == tensor.resolve({"B": 5, "H": 64, "W": 64, "T": 77})
    if backend.is_numeric:
        oracle = engine.spec.load(models["sd1"])
        with torch.no_grad():
            assert accuracy.worst_error(tuple(outputs.values()), oracle(**inputs)) <= accuracy.LIMITS["fp32"][0]
    engine.close()


def test_profiling_never_times_a_split_batch(bucketed):
    with pytest.raises(ShapeError, match="B=3"):
        bucketed.profile(latents(3, 64, 64), {"B": 3, "H": 64, "W": 64}, 1)


def test_more_images_than_were_built_come_out_of_one_call(bundles):
    pipe = sdtrt.load(bundles("sd1", "fake"))
    pipe.set_progress_bar_config(disable=True)
    call = {"num_inference_steps": 1, "height": 64, "width": 64}
    assert len(pipe("a fox", num_images_per_prompt=9, **call).images) == 9
    assert pipe.unet.engines["unet"].notes() == ("1 call with a larger batch than was built, run in 3 parts",)


# ---------------------------------------------------------------------------------------------- outside


def test_a_size_outside_comes_with_what_was_built_the_nearest_and_the_command(bundles, backend):
    bundle = bundles("sd1", backend.name)
    engine = load_engines(bundle)["unet"]
    with pytest.raises(ShapeError) as caught:
        engine(**inputs_at(engine.spec, 1, 256, 208))
    text = str(caught.value)
    assert caught.value.slug == "outside-profile"
    assert "B=1:1:4,H=64:128:192,W=64:128:192,T=77: image height 256 is outside 64 to 192, image width 208" in text
    assert "nearest that works: B=1,H=192,W=192 (H in steps of 32, W in steps of 32)" in text
    assert f'sdtrt build {bundle.path} --add-profile "B=1,H=256,W=208"' in text
    built = sum(sum(bundle.manifest.components[n].seconds.values()) for n in COMPONENTS[1:])
    if backend.name in RANGED:
        assert "rebuilt: unet, vae_decoder, vae_encoder; kept: text_encoder" in text
        assert f"with 1 profile: {unbuilt_sizes.duration(built)}" in text
        assert "activations at this size: unet " in text
    elif backend.name == "onnxruntime":  # 208 is off the steps of 32 that its U-Net was traced for
        assert "rebuilt: unet; kept: text_encoder, vae_decoder, vae_encoder" in text


def test_a_size_that_the_graph_takes_costs_no_engine(bundles):
    engine = load_engines(bundles("sd1", "onnxruntime"))["unet"]
    with pytest.raises(ShapeError, match="no engine is rebuilt"):
        engine(**inputs_at(engine.spec, 1, 256, 256))


def test_times_that_were_not_recorded_are_called_unknown(bundles):
    bundle = bundles("sd1", "fake")
    components = {n: c.model_copy(update={"seconds": {}}) for n, c in bundle.manifest.components.items()}
    untimed = Bundle(bundle.path, bundle.manifest.model_copy(update={"components": components}))
    engine = load_engines(untimed)["unet"]
    with pytest.raises(ShapeError, match="with 1 profile: an unknown time"):
        engine(**inputs_at(engine.spec, 1, 256))


@pytest.mark.parametrize("size", [(1, 256, 64), (9, 8, 72), (3, 1024, 16), (1, 72, 200)])
def test_the_nearest_that_is_named_works(bucketed, size):
    with pytest.raises(ShapeError) as caught:
        bucketed(**latents(*size))
    named = re.search(r"nearest that works: B=(\d+),H=(\d+),W=(\d+)", str(caught.value))
    assert bucketed.profile_for(latents(*map(int, named.groups())))


def test_a_fixed_batch_of_two_takes_no_three(bundles):
    bundle, backend = bundles("sd1", "fake"), engines.load("fake")
    engine = backend.load(bundle.folder("vae_decoder"), context(bundle, backend, "vae_decoder", "B=2,H=64,W=64"))
    assert engine(**latents(4, 64, 64))["image"].shape[0] == 4
    with pytest.raises(ShapeError, match="nearest that works: B=2,H=64,W=64"):
        engine(**latents(3, 64, 64))
    with pytest.raises(ShapeError, match="image height 72 is not 64"):
        engine(**latents(2, 72, 64))


def test_what_no_profile_mends_comes_without_a_command(bundles):
    engine = load_engines(bundles("sd1", "fake"))["vae_encoder"]
    cases = {(1, 4, 64, 64): "wrong-shape", (1, 3, 64): "wrong-shape", (1, 3, 132, 64): "multiples of 8"}
    for shape, what in cases.items():
        with pytest.raises(ShapeError) as caught:
            engine(image=torch.zeros(shape))
        assert what in f"{caught.value.slug} {caught.value}"
        assert "--add-profile" not in str(caught.value)


# ---------------------------------------------------------------------------------------------- eager fallback


def test_the_fallback_is_the_checkpoint_and_says_so_once(bundles, backend, models):
    bundle = bundles("sd1", backend.name)
    lent = replace(
        context(bundle, backend, "vae_decoder"), eager=unbuilt_sizes.eager(bundle, spec_of(bundle, "vae_decoder"), None)
    )
    engine = backend.load(bundle.folder("vae_decoder"), lent)
    outside_size = latents(1, 32, 40)
    engine(**latents(1, 64, 64))
    assert "own module" not in str(engine.notes())
    with pytest.warns(FallbackWarning, match="vae_decoder runs the checkpoint's own module"):
        got = engine(**outside_size)["image"]
    assert torch.equal(got, engine(**outside_size)["image"])  # a second warning would be an error here
    with torch.no_grad():
        assert torch.equal(got, engine.spec.load(models["sd1"])(**outside_size)[0])
    assert "2 calls of a size that was not built, run by the checkpoint's own module" in engine.notes()
    with pytest.raises(ShapeError, match="another shape than the model takes"):
        engine(latent_sample=torch.zeros(1, 5, 8, 8))
    engine.close()


def test_an_image_outside_is_that_of_eager(bundles, models):
    pipes = (
        sdtrt.load(bundles("sd1"), on_unsupported_size="eager", model=str(models["sd1"])),
        eager_pipeline.eager(models["sd1"]),
    )
    images = []
    for pipe in pipes:
        pipe.set_progress_bar_config(disable=True)
        call = {"num_inference_steps": 1, "height": 32, "width": 32, "output_type": "np"}
        with pytest.warns(FallbackWarning) if pipe is pipes[0] else ExitStack():
            images.append(pipe("a fox", generator=torch.manual_seed(0), **call).images)
    assert image_metrics.psnr(*images) >= 40


def test_the_fallback_has_the_type_of_its_engine(bundles):
    bundle = bundles("sd1", "fake")
    half = families.load("sd").components(bundle.pipeline_folder, "fp16")["unet"]
    module = unbuilt_sizes.eager(bundle, half, None)()
    assert {p.dtype for p in module.parameters()} == {torch.float16}


def test_the_fallback_refuses_other_weights(bundles, retrained):
    bundle = bundles("sd1", "fake")
    load = unbuilt_sizes.eager(bundle, spec_of(bundle, "unet"), str(retrained))
    with pytest.raises(BundleError, match="not those that the bundle was built from"):
        load()


def test_the_fallback_refuses_when_a_lora_is_in_the_engine(bundles, monkeypatch):
    engine = load_engines(bundles("sd1", "fake"), LoadOptions(on_unsupported_size="eager"))["vae_decoder"]
    monkeypatch.setattr(engine, "weights", lambda: type("Weights", (), {"changed": frozenset({"w"})})())
    with pytest.raises(Unsupported, match="LoRA"):
        engine(**latents(1, 32, 32))


def test_no_third_answer_to_an_outside_size(bundles):
    with pytest.raises(ConfigError, match="error or eager"):
        sdtrt.load(bundles("sd1", "fake"), on_unsupported_size="ignore")


# ---------------------------------------------------------------------------------------------- sizes added


def inodes(path):
    files = {n: [p for p in (path / n).iterdir() if p.name != "component.json"] for n in COMPONENTS}
    return {name: {p.name: p.stat().st_ino for p in found} for name, found in files.items()}


def actions(plan):
    return {s.spec.name: s.action for s in plan.steps}


def test_only_what_depends_on_a_new_size_is_rebuilt(bundles, backend):
    plan = add_profiles.plan(bundles("sd1", backend.name).path, ["B=1,H=256"])
    anew = dict.fromkeys(COMPONENTS, "build") if backend.name in RANGED else {}
    assert actions(plan) == dict.fromkeys(COMPONENTS, "reuse") | anew | {"text_encoder": "reuse"}
    reasons = {s.spec.name: s.reasons[0] for s in plan.steps}
    assert reasons["text_encoder"] == "it does not depend on the new sizes"
    if not anew:
        assert reasons["unet"] == "its engine takes the new sizes as it is"


def test_a_larger_batch_rebuilds_the_text_encoder_too(bundles):
    assert set(actions(add_profiles.plan(bundles("sd1", "fake").path, ["B=8"])).values()) == {"build"}


def test_sizes_off_the_steps_of_a_graph_rebuild_the_unet_alone(bundles):
    plan = add_profiles.plan(bundles("sd1", "onnxruntime").path, ["H=72"])
    assert [n for n, action in actions(plan).items() if action == "build"] == ["unet"]


def test_a_bundle_gets_further_sizes_and_keeps_the_rest(bundle_copy):
    path = bundle_copy("sd1", "fake")
    before = inodes(path)
    made = sdtrt.add_profiles(path, ["B=1,H=256,W=320"])
    assert made.manifest.profiles == ("B=1:1:4,H=64:128:192,W=64:128:192,T=77", "B=1,H=256,W=320,T=77")
    after = inodes(path)
    assert after["text_encoder"] == before["text_encoder"]
    assert after["unet"] != before["unet"]
    engine = load_engines(Bundle.open(path))["unet"]
    assert str(engine.profile_for(inputs_at(engine.spec, 1, 256, 320))) == "B=1,H=256,W=320,T=77"
    modified = (path / "manifest.json").stat().st_mtime_ns
    sdtrt.add_profiles(path, ["B=1,H=256,W=320"])
    assert (path / "manifest.json").stat().st_mtime_ns == modified


def test_a_graph_with_dynamic_axes_only_gets_a_new_manifest(bundle_copy):
    path = bundle_copy("sd1", "onnxruntime")
    before = inodes(path)
    sdtrt.add_profiles(path, ["B=1,H=32,W=32"])
    assert inodes(path) == before
    engine = load_engines(Bundle.open(path))["vae_decoder"]
    assert engine(**latents(1, 32, 32))["image"].shape == (1, 3, 32, 32)


def test_a_kept_engine_that_is_wrong_at_a_new_size_is_never_offered(bundle_copy, monkeypatch):
    path = bundle_copy("sd1", "onnxruntime")
    monkeypatch.setattr(accuracy, "worst_error", lambda outputs, expected: 1.0)
    with pytest.raises(VerifyError, match="H=32"):
        sdtrt.add_profiles(path, ["B=1,H=32,W=32"])
    assert len(Bundle.open(path).manifest.profiles) == 1


def test_a_killed_addition_loses_nothing_and_resumes(bundle_copy, monkeypatch):
    path, backend = bundle_copy("sd1", "fake"), engines.load("fake")
    before = inodes(path), (path / "manifest.json").read_bytes()

    def build(source, options, folder):
        if source.spec.name == "vae_decoder":
            raise KeyboardInterrupt
        type(backend).build(backend, source, options, folder)

    monkeypatch.setattr(backend, "build", build, raising=False)
    with pytest.raises(KeyboardInterrupt):
        sdtrt.add_profiles(path, ["H=256"])
    assert (inodes(path), (path / "manifest.json").read_bytes()) == before
    assert set(Staging(path).finished()) == {"text_encoder", "unet"}
    monkeypatch.undo()
    assert actions(add_profiles.plan(path, ["H=256"])) == {
        "text_encoder": "reuse",
        "unet": "resume",
        "vae_decoder": "build",
        "vae_encoder": "build",
    }
    assert len(sdtrt.add_profiles(path, ["H=256"]).manifest.profiles) == 2
