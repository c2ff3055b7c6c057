"""What every backend promises, whatever it is: one suite, run over all of them."""

import shutil
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from sdtrt import engines
from sdtrt import models as families
from sdtrt.costs import graph_costs
from sdtrt.engines import accuracy
from sdtrt.errors import ConfigError, EngineError, ShapeError
from sdtrt.pipelines.engine_loading import LoadOptions, load_engines
from sdtrt.plan.layers import Plan
from sdtrt.shapes.sample_inputs import sample_inputs

COMPONENTS = ("text_encoder", "unet", "vae_decoder", "vae_encoder")
SIZES = [(1, 64, 64), (2, 96, 160), (1, 192, 128)]
MEASURED = ("graph", "profile", "profile.metadata", "timing")  # TensorRT's own reports, which no engine reads
NOT_ENGINE = {"plan.json", "component.json", "final_layer_norm.safetensors"} | {
    f"engine.plan.{m}.json" for m in MEASURED
}


# Which of them promise more: results that mean something, and layers that name the nodes of an ONNX file.
COMPUTING = [n for n in engines.names() if engines.load(n).is_numeric]
READING_ONNX = [n for n in engines.names() if engines.load(n).input_format == "onnx"]


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def made(bundles, backend):
    """make(component, folder) loads an engine of the backend, from the sd1 bundle (only once) or from `folder`."""
    loaded = {}

    def make(component, folder=None):
        bundle = bundles("sd1", backend.name)
        manifest = bundle.manifest
        if component not in manifest.components:
            pytest.skip(f"{component} is not built for {backend.name} here: see conftest.py")
        context = engines.EngineContext(
            spec=families.load(manifest.family).components(bundle.pipeline_folder, manifest.precision)[component],
            profiles=manifest.shape_profiles,
            options=backend.check_options(manifest.options),
        )
        if folder is not None:
            return backend.load(folder, context)
        if component not in loaded:
            loaded[component] = backend.load(bundle.folder(component), context)
        return loaded[component]

    return make


def inputs_at(engine, size=(1, 64, 64), seed=0):
    """Inputs at the size, or at the nearest that the engine serves."""
    ranges = engine.context.profiles[0].ranges
    sizes = {s: min(max(n, ranges[s][0]), ranges[s][2]) for s, n in zip("BHW", size, strict=True)} | {"T": 77}
    return sample_inputs(engine.spec, sizes, seed), sizes


# ---------------------------------------------------------------------------------------------- calls


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("component", COMPONENTS)
def test_outputs_are_those_of_the_spec(made, component, size):
    engine = made(component)
    inputs, sizes = inputs_at(engine, size)
    outputs = engine(**inputs)
    assert {n: tuple(o.shape) for n, o in outputs.items()} == {t.name: t.resolve(sizes) for t in engine.spec.outputs}
    assert {n: str(o.dtype) for n, o in outputs.items()} == {t.name: f"torch.{t.dtype}" for t in engine.spec.outputs}
    assert all(o.device.type == engine.device.type for o in outputs.values())


@pytest.mark.parametrize("batch", [1, 3, 8])
def test_unet_takes_any_batch_up_to_twice_the_images(made, batch):
    engine = made("unet")
    batch = min(batch, 2 * engine.context.profiles[0].ranges["B"][2])
    inputs = {n: t[:1].repeat(batch, *[1] * (t.dim() - 1)) for n, t in inputs_at(engine)[0].items()}
    assert engine(**inputs)["out_sample"].shape == (batch, 4, 8, 8)


@pytest.mark.parametrize("component", COMPONENTS)
def test_same_inputs_same_outputs(made, component):
    engine = made(component)
    first, second = (engine(**inputs_at(engine)[0]) for _ in range(2))
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name])


def test_loaded_one_at_a_time_the_outputs_are_the_same(made, bundles, backend, monkeypatch):
    for component in COMPONENTS:
        made(component)
    alive, counts, load = weakref.WeakSet(), [], backend.load

    def counted(folder, context):
        engine = load(folder, context)
        alive.add(engine)
        counts.append(len(alive))
        return engine

    monkeypatch.setattr(backend, "load", counted, raising=False)
    lazy = load_engines(bundles("sd1", backend.name), LoadOptions(low_memory=True))
    for component, engine in lazy.items():
        inputs = inputs_at(engine)[0]
        want = made(component)(**inputs)
        assert engine.device == made(component).device
        assert all(torch.equal(tensor, want[name]) for name, tensor in engine(**inputs).items())
    assert counts == [1] * len(COMPONENTS), "two were in memory, or one was loaded twice"


def test_context_memory_is_told_by_profile_or_unknown(made, bundles, backend):
    for component in COMPONENTS:
        found = made(component).context_bytes()
        assert len(found) == len(bundles("sd1", backend.name).manifest.profiles)
        assert all(size is None or size > 0 for size in found)
        assert (None in found) == (backend.name != "tensorrt"), "the others do not say"


def test_outputs_belong_to_the_caller(made):
    engine = made("unet")
    kept = engine(**inputs_at(engine)[0])["out_sample"]
    copy = kept.clone()
    engine(**inputs_at(engine, seed=1)[0])
    assert torch.equal(kept, copy)
    kept *= 2  # in place, as schedulers and callbacks do


def test_inputs_are_cast_and_made_contiguous(made):
    engine = made("unet")
    inputs, _ = inputs_at(engine, (2, 64, 64))
    want = engine(**inputs)["out_sample"]
    inputs["sample"] = inputs["sample"].double().contiguous(memory_format=torch.channels_last)
    assert torch.equal(engine(**inputs)["out_sample"], want)


def test_inputs_are_not_changed(made):
    engine = made("unet")
    inputs, _ = inputs_at(engine)
    before = {n: t.clone() for n, t in inputs.items()}
    engine(**inputs)
    assert all(torch.equal(t, before[n]) for n, t in inputs.items())


def test_calls_from_several_threads(made):
    engine = made("text_encoder")
    inputs = [inputs_at(engine, (1 + i % 3, 64, 64), seed=i)[0] for i in range(16)]
    expected = [engine(**i) for i in inputs]
    with ThreadPoolExecutor(8) as pool:
        got = list(pool.map(lambda i: engine(**i), inputs))
    for mine, theirs in zip(got, expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-5)


def test_counts_calls_and_seconds(made):
    engine = made("text_encoder")
    calls, seconds = engine.calls, engine.seconds
    engine(**inputs_at(engine)[0])
    assert engine.calls == calls + 1
    assert engine.seconds > seconds


@pytest.mark.parametrize("backend", COMPUTING, indirect=True)
@pytest.mark.parametrize("component", COMPONENTS)
def test_matches_eager(made, bundles, backend, component):
    engine = made(component)
    oracle = engine.spec.load(Path(bundles("sd1", backend.name).manifest.model))
    for size in SIZES:
        assert accuracy.component_error(engine, oracle, inputs_at(engine, size)[1]) <= accuracy.LIMITS["fp32"].error


# ---------------------------------------------------------------------------------------------- refusals


def test_refuses_missing_and_unknown_inputs(made):
    engine = made("unet")
    inputs, _ = inputs_at(engine)
    with pytest.raises(EngineError, match="other inputs"):
        engine(**inputs, image_embeds=inputs["sample"])
    del inputs["timestep"]
    with pytest.raises(EngineError, match="timestep"):
        engine(**inputs)


def test_refuses_a_tensor_on_another_device(made):
    engine = made("unet")
    inputs, _ = inputs_at(engine)
    with pytest.raises(EngineError, match=r"unet\.sample lies on another device"):
        engine(**inputs | {"sample": inputs["sample"].to("meta")})


@pytest.mark.parametrize(
    ("component", "name", "shape"),
    [
        ("unet", "sample", (2, 4, 32, 16)),  # too large
        ("unet", "sample", (2, 4, 8, 4)),  # too small
        ("unet", "sample", (2, 4, 17, 16)),  # off the step of 32 pixels
        ("unet", "sample", (2, 5, 16, 16)),
        ("unet", "sample", (2, 4, 16)),
        ("unet", "timestep", (1,)),  # another batch than the sample
        ("unet", "encoder_hidden_states", (2, 78, 32)),
        ("text_encoder", "input_ids", (1, 78)),
        ("vae_decoder", "latent_sample", (5, 4, 32, 16)),
        ("vae_encoder", "image", (1, 3, 132, 128)),
    ],
)
def test_refuses_sizes_that_were_not_built(made, component, name, shape):
    engine = made(component)
    inputs, _ = inputs_at(engine)
    with pytest.raises(ShapeError, match=f"(?s){component}: .*{name}"):
        engine(**inputs | {name: torch.zeros(shape, dtype=inputs[name].dtype)})


@pytest.mark.parametrize("how", ["truncated", "empty", "missing"])
@pytest.mark.parametrize("component", ["unet", "text_encoder"])
def test_damaged_files(made, backend, bundles, tmp_path, component, how):
    source = bundles("sd1", backend.name).folder(component)
    files = [p.relative_to(source) for p in source.rglob("*") if p.is_file() and p.name not in NOT_ENGINE]
    files = [p for p in files if not (backend.name == "tensorrt" and p.name.startswith("model.onnx"))]  # only kept
    # Costs, which a profile adds its times to, and kernels that are compiled anew where they are missing.
    files = [p for p in files if not p.name.endswith((".plan.json", ".so"))]
    assert files
    for index, file in enumerate(files):
        folder = shutil.copytree(source, tmp_path / str(index))
        if how == "missing":
            (folder / file).unlink()
        else:
            data = (folder / file).read_bytes()
            (folder / file).write_bytes(data[: len(data) // 2] if how == "truncated" else b"")
        with pytest.raises(EngineError, match="cannot be loaded"):
            made(component, folder)


def test_unknown_option(backend):
    with pytest.raises(ConfigError, match="no_such_option"):
        backend.check_options({"no_such_option": 1})


def test_defaults_are_filled_in(backend):
    checked = backend.check_options({})
    assert backend.check_options(checked) == checked
    assert dict(checked).keys() == backend.options.model_fields.keys()


def test_closing_twice_is_harmless(made, bundles, backend):
    engine = made("text_encoder", bundles("sd1", backend.name).folder("text_encoder"))
    engine.close()
    engine.close()


# ---------------------------------------------------------------------------------------------- plans


def test_names_its_version_and_device(backend):
    assert backend.version()
    assert backend.device(backend.check_options({}))


@pytest.mark.parametrize("component", COMPONENTS)
def test_profile(made, backend, tmp_path, component):
    engine = made(component)
    inputs, sizes = inputs_at(engine)
    plan = engine.profile(inputs, sizes, 2)
    assert (plan.component, plan.backend, plan.sizes) == (component, backend.name, sizes)
    assert plan.backend_version == backend.version()
    plan.save(tmp_path / "plan.json")
    assert Plan.load(tmp_path / "plan.json") == plan
    names = [layer.name for layer in plan.layers]
    assert len(names) == len(set(names)) > 0
    if backend.is_numeric:
        timed = [layer for layer in plan.layers if layer.times_ms is not None]
        assert len(timed) > 0.8 * len(plan.layers)
        assert {len(layer.times_ms) for layer in timed} == {2}
        assert len(plan.wall_times_ms) == 2


def test_profiling_leaves_the_engine_as_it_was(made):
    engine = made("unet")
    inputs, sizes = inputs_at(engine)
    before = engine(**inputs)["out_sample"]
    engine.profile(inputs, sizes, 1)
    assert torch.equal(engine(**inputs)["out_sample"], before)


@pytest.mark.parametrize("backend", READING_ONNX, indirect=True)
@pytest.mark.parametrize("family", ["sd1", "sd2", "sdxl"])
@pytest.mark.parametrize("component", COMPONENTS)
def test_plan_accounts_for_every_node(backend, bundles, family, component):
    bundle = bundles(family, backend.name)
    plan = bundle.plan(component)
    spec = families.load(bundle.manifest.family).components(bundle.pipeline_folder, "fp32")[component]
    file = next(bundle.folder(component).glob("*.onnx"))
    nodes = graph_costs(file, {t.name: t.resolve(plan.sizes) for t in spec.inputs}).nodes
    covered = {node for layer in plan.layers for node in layer.nodes}
    assert {n for n, c in nodes.items() if c.flops} <= covered
    assert sum(layer.flops or 0 for layer in plan.layers) == plan.total_flops
    assert sum(layer.weight_bytes or 0 for layer in plan.layers) == plan.total_weight_bytes
    assert plan.total_flops == sum(c.flops for c in nodes.values())
    time = sum(layer.time_ms or 0 for layer in plan.layers)
    assert sum(layer.time_ms or 0 for layer in plan.layers if layer.module is None) < 0.01 * time
