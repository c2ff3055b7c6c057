"""LoRA at run time: refits of engines of TensorRT's double, compared with diffusers and with what is built in."""

import numpy as np
import onnx
import pytest
import shared_exports
import tiny_loras
import torch
from trt import bindings, use

import sdtrt
from sdtrt import builder, lora, parity
from sdtrt.config import LoraEntry
from sdtrt.engines import _onnx_weights
from sdtrt.errors import ConfigError, EngineError, ModelError, Unsupported, VerifyError
from sdtrt.pipeline import load_engines

PROFILE = {"sd1": "B=1:1:2,H=64:64:128,W=64:64:128", "sdxl": "B=1:1:2,H=128,W=128"}
CALL = {"num_inference_steps": 2, "output_type": "np"}
CASES = [("sd1", "10.16.1.11"), ("sd1", bindings.NEWEST), ("sdxl", bindings.NEWEST)]

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    # What peft says when diffusers loads a second adapter.
    pytest.mark.filterwarnings("ignore:Already found a `peft_config` attribute:UserWarning"),
]


@pytest.fixture(scope="module", params=CASES, ids="-".join)
def case(request, apis, cache):
    """(family, release) with the double in place."""
    with use.tensorrt(request.param[1], cache):
        yield request.param


# For what is the same in all of them.
once = pytest.mark.parametrize("case", [CASES[1]], ids="-".join, indirect=True)


@pytest.fixture(scope="module")
def bundle(case, cache, models):
    """U-Net and text encoders that take other weights; the VAE stays the pipeline's own."""
    return build(cache, models, *case, refit="all")


def build(cache, models, family, release, **settings):
    """Build, or take what an earlier run left."""
    names = ["unet", *(n for n in ("text_encoder", "text_encoder_2") if (models[family] / n).is_dir())]
    precision, components = settings.pop("precision", "fp32"), settings.pop("components", names)
    tag = "-".join([family, precision, *settings.values(), release, *components])
    with shared_exports.shared(cache / "exports"):
        return builder.build(
            models[family],
            cache / "bundles" / f"refit-{tag}",
            backend="tensorrt",
            profiles=[PROFILE[family]],
            components=components,
            precision=precision,
            profile_runs=1,
            options=settings,
        )


@pytest.fixture(scope="module")
def files(case, models, tmp_path_factory):
    """Two LoRAs of the family, and one of another."""
    folder, family = tmp_path_factory.mktemp("loras"), case[0]
    other = "sdxl" if family == "sd1" else "sd1"
    made = {n: tiny_loras.make(folder / f"{n}.safetensors", models[family], i) for i, n in enumerate(("fox", "ink"))}
    return {**made, "other": tiny_loras.make(folder / "other.safetensors", models[other], 9)}


@pytest.fixture(scope="module")
def stock(case, models):
    """Diffusers' own pipeline."""
    return parity.eager(models[case[0]])


@pytest.fixture(scope="module")
def shared_pipe(case, bundle, models):
    made = parity.eager(models[case[0]])
    return sdtrt.accelerate(made, bundle)


@pytest.fixture
def pipe(shared_pipe, stock):
    """The pipeline with engines, without adapters at the start and at the end of a test."""
    yield shared_pipe
    shared_pipe.unfuse_lora()
    shared_pipe.unload_lora_weights()
    shared_pipe.enable_lora()
    stock.unload_lora_weights()


def image(pipe):
    size = 64 if "XL" not in type(pipe).__name__ else 128
    noise = torch.Generator().manual_seed(1)
    return pipe("a red fox", generator=noise, height=size, width=size, **CALL).images


def engines_of(pipe):
    parts = (getattr(pipe, name, None) for name in ("text_encoder", "text_encoder_2", "unet"))
    return {name: engine for part in parts if part is not None for name, engine in part.engines.items()}


def inside(pipe):
    """Every weight in the engines, as bytes."""
    return {
        (name, t.name): onnx.numpy_helper.to_array(t).tobytes()
        for name, engine in engines_of(pipe).items()
        for t in engine.session.engine._plan.model.graph.initializer
    }


def same(pipe, stock):
    return parity.psnr(image(pipe), image(stock)) >= 60


# ------------------------------------------------------------------------------------ what adapters do


def test_every_parameter_is_found_in_the_exported_graph(case, bundle, models):
    family = sdtrt.models.family_of(models[case[0]])
    specs = family.components(models[case[0]], "fp32")
    for name in bundle.manifest.components:
        weights = specs[name].load(models[case[0]]).inner.state_dict()
        found = _onnx_weights.Initialisers(bundle.folder(name) / "model.onnx", name, "rebuild")
        merged = found.merged(weights)
        for key, tensor in weights.items():
            assert torch.equal(found[merged.get(key, key)], tensor), key
        assert not merged or case[0] == "sdxl"  # random weights have many equal norms and biases


def test_an_adapter_does_what_it_does_in_diffusers(pipe, stock, files):
    plain = image(pipe)
    for each in (pipe, stock):
        each.load_lora_weights(str(files["fox"]), adapter_name="fox")
    assert same(pipe, stock)
    assert parity.psnr(image(pipe), plain) < 45, "the adapter does something"
    assert pipe.get_list_adapters() == stock.get_list_adapters()


def test_two_adapters_with_weights_below_zero_and_above_one(pipe, stock, files):
    for each in (pipe, stock):
        for name in ("fox", "ink"):
            each.load_lora_weights(str(files[name]), adapter_name=name)
        each.set_adapters(["fox", "ink"], [-0.5, 1.5])
    assert same(pipe, stock)
    assert pipe.get_active_adapters() == ["fox", "ink"]


@once
def test_weights_may_differ_by_part_and_block(pipe, stock, files):
    for each in (pipe, stock):
        each.load_lora_weights(str(files["fox"]), adapter_name="fox")
        each.set_adapters("fox", [{"text_encoder": 0.5, "unet": {"down": 0.9, "mid": 0.2, "up": 1.2}}])
    assert same(pipe, stock)


def test_the_weights_in_the_engine_are_those_of_a_module_with_the_adapters_baked_in(pipe, files, models, case):
    folder = models[case[0]]
    specs = sdtrt.models.family_of(folder).components(folder, "fp32")
    scales = {"fox": 0.7, "ink": -0.3}
    for name in scales:
        pipe.load_lora_weights(str(files[name]), adapter_name=name)
    pipe.set_adapters(list(scales), list(scales.values()))
    found = inside(pipe)
    loras = lora.baked([LoraEntry(path=str(files[n]), scale=s) for n, s in scales.items()], specs, folder)
    compared = 0
    for name in engines_of(pipe):
        module = specs[name].load(folder)
        lora.bake(module, specs[name], loras, folder)
        for key, tensor in module.inner.state_dict().items():
            if (name, key) in found:
                assert found[name, key] == tensor.numpy().tobytes(), f"{name}.{key}"
                compared += 1
    assert compared > 100


def test_unloading_restores_the_weights_and_the_image_to_the_bit(pipe, files):
    before, plain = inside(pipe), image(pipe)
    pipe.load_lora_weights(str(files["fox"]))
    pipe.set_adapters("default_0", 2.5)
    assert inside(pipe) != before
    pipe.unload_lora_weights()
    assert inside(pipe) == before
    assert np.array_equal(image(pipe), plain)
    assert pipe.get_list_adapters() == {}


@once
def test_one_style_leaves_nothing_in_the_next(pipe, files):
    pipe.load_lora_weights(str(files["ink"]), adapter_name="ink")
    alone = inside(pipe)
    pipe.load_lora_weights(str(files["fox"]), adapter_name="fox")
    pipe.set_adapters("ink")
    assert inside(pipe) == alone
    pipe.delete_adapters("fox")
    assert inside(pipe) == alone
    pipe.disable_lora()
    pipe.enable_lora()
    assert inside(pipe) == alone


@once
def test_disabled_adapters_do_nothing(pipe, files):
    before = inside(pipe)
    pipe.load_lora_weights(str(files["fox"]))
    pipe.disable_lora()
    assert inside(pipe) == before


@once
def test_what_is_fused_stays_when_adapters_are_unloaded(pipe, stock, files):
    before = inside(pipe)
    for each in (pipe, stock):
        each.load_lora_weights(str(files["fox"]), adapter_name="fox")
    pipe.fuse_lora(lora_scale=0.6)
    stock.set_adapters("fox", 0.6)
    assert same(pipe, stock)
    pipe.unload_lora_weights()
    assert same(pipe, stock)
    for each in (pipe, stock):
        each.load_lora_weights(str(files["ink"]), adapter_name="ink")
    stock.set_adapters(["fox", "ink"], [0.6, 1.0])
    assert same(pipe, stock), "another adapter comes on top"
    pipe.unload_lora_weights()
    pipe.unfuse_lora()
    assert inside(pipe) == before


@once
def test_an_adapter_that_is_fused_and_still_loaded_counts_once(pipe, stock, files):
    for each in (pipe, stock):
        each.load_lora_weights(str(files["fox"]), adapter_name="fox")
    pipe.fuse_lora()
    pipe.fuse_lora()
    assert same(pipe, stock)
    pipe.unfuse_lora()
    assert same(pipe, stock)


@once
def test_graphs_are_captured_anew(pipe, stock, files):
    image(pipe)
    image(pipe)
    captured = engines_of(pipe)["unet"].session.stats.as_json()["captured"]
    for each in (pipe, stock):
        each.load_lora_weights(str(files["fox"]))
    for _ in range(2):
        assert same(pipe, stock)
    assert engines_of(pipe)["unet"].session.stats.as_json()["captured"] > captured


@once
def test_an_adapter_of_tensors(pipe, files):
    from safetensors.torch import load_file

    tensors = {k: v for k, v in load_file(files["fox"]).items() if k.startswith("unet.")}
    before = inside(pipe)
    pipe.load_lora_weights(tensors, adapter_name="given")
    after = inside(pipe)
    assert {key[0] for key in before if after[key] != before[key]} == {"unet"}


# ------------------------------------------------------------------------------------ what goes wrong


@once
def test_an_adapter_of_another_family_changes_nothing(pipe, files):
    before = inside(pipe)
    with pytest.raises(ModelError) as caught:
        pipe.load_lora_weights(str(files["other"]))
    assert caught.value.slug == "lora-keys"
    assert "lora_A" in caught.value.received
    assert inside(pipe) == before
    assert pipe.get_list_adapters() == {}


@once
def test_a_name_is_given_once(pipe, files):
    pipe.load_lora_weights(str(files["fox"]), adapter_name="fox")
    with pytest.raises(ConfigError) as caught:
        pipe.load_lora_weights(str(files["ink"]), adapter_name="fox")
    assert caught.value.slug == "lora-name"


@once
def test_an_engine_that_computes_something_else_gets_its_own_weights_back(pipe, files, monkeypatch):
    before, plain = inside(pipe), image(pipe)
    pipe.load_lora_weights(str(files["fox"]), adapter_name="fox")
    monkeypatch.setenv("TENSORRT_DOUBLE_FAULTS", "nan")
    with pytest.raises(VerifyError) as caught:
        pipe.set_adapters("fox", 0.5)
    assert caught.value.slug == "verify-refit"
    monkeypatch.delenv("TENSORRT_DOUBLE_FAULTS")
    assert inside(pipe) == before
    assert np.array_equal(image(pipe), plain)
    assert pipe.get_active_adapters() == []
    pipe.set_adapters("fox", 0.5)
    assert inside(pipe) != before


@once
def test_a_weight_that_the_engine_wants_and_the_bundle_lacks(pipe, files, monkeypatch):
    import tensorrt as trt

    before = inside(pipe)
    monkeypatch.setattr(trt.Refitter, "get_missing_weights", lambda self: ["nowhere.weight"])
    with pytest.raises(EngineError) as caught:
        pipe.load_lora_weights(str(files["fox"]))
    assert caught.value.slug == "refit-missing"
    assert "nowhere.weight" in caught.value.received
    assert inside(pipe) == before
    assert pipe.get_list_adapters() == {}


@once
def test_a_weight_that_the_engine_does_not_let_go(pipe, files, monkeypatch):
    import tensorrt as trt

    every = trt.Refitter.get_all_weights
    monkeypatch.setattr(trt.Refitter, "get_all_weights", lambda self: every(self)[::2])
    with pytest.raises(EngineError) as caught:
        pipe.load_lora_weights(str(files["fox"]))
    assert caught.value.slug == "refit-fixed"
    assert "refit: all" in caught.value.hint


@once
def test_an_adapter_that_changes_merged_weights_is_refused(pipe, files, monkeypatch):
    unet = engines_of(pipe)["unet"].weights()
    monkeypatch.setattr(type(unet), "shared", lambda self, names: frozenset(names))
    with pytest.raises(ModelError) as caught:
        pipe.load_lora_weights(str(files["fox"]))
    assert caught.value.slug == "lora-shared"
    assert "to_q.weight" in caught.value.received or "q_proj.weight" in caught.value.received


@once
def test_a_component_that_is_not_there(pipe):
    with pytest.raises(ConfigError, match="vae"):
        pipe.fuse_lora(components=["vae"])


# ------------------------------------------------------------------------------------ other engines


@pytest.fixture(scope="module")
def newest(apis, cache):
    with use.tensorrt(bindings.NEWEST, cache):
        yield bindings.NEWEST


@pytest.mark.parametrize("refit", ["none", "identical"])
def test_engines_that_keep_their_weights_refuse_with_what_to_do(newest, cache, models, refit):
    bundle = build(cache, models, "sd1", newest, refit=refit, components=["text_encoder"])
    pipe = sdtrt.accelerate(parity.eager(models["sd1"]), bundle)
    with pytest.raises(Unsupported, match="refit: all"):
        pipe.load_lora_weights("anything")


def test_half_precision_engines_take_half_precision_weights(newest, cache, models, tmp_path):
    bundle = build(cache, models, "sd1", newest, refit="all", precision="fp16", components=["text_encoder"])
    file = tiny_loras.make(tmp_path / "text.safetensors", models["sd1"], 1, ["text_encoder"])
    engine = load_engines(bundle)["text_encoder"]
    switch = lora.LoraSwitch({"text_encoder": engine}, {}, bundle.pipeline_folder, xl=False)
    switch.load_lora_weights(file)
    assert engine.weights().changed
    before = [t.raw_data for t in engine.session.engine._plan.model.graph.initializer]
    switch.set_adapters("default_0", 0.5)
    assert [t.raw_data for t in engine.session.engine._plan.model.graph.initializer] != before
    switch.unload_lora_weights()
    assert not engine.weights().changed


def test_adapters_go_onto_parts_without_an_engine_too(newest, cache, models, tmp_path):
    bundle = build(cache, models, "sd1", newest, refit="all", components=["text_encoder"])
    file = tiny_loras.make(tmp_path / "fox.safetensors", models["sd1"], 1)
    stock = parity.eager(models["sd1"])
    pipe = sdtrt.accelerate(parity.eager(models["sd1"]), bundle, options={"refit_check": False})
    plain = image(pipe)
    for each in (pipe, stock):
        each.load_lora_weights(str(file), adapter_name="fox")
    assert same(pipe, stock)
    pipe.fuse_lora()
    pipe.unload_lora_weights()
    assert same(pipe, stock), "fused in the engine and in the module"
    pipe = sdtrt.accelerate(parity.eager(models["sd1"]), bundle)
    pipe.load_lora_weights(str(file), adapter_name="fox")
    pipe.unload_lora_weights()
    assert np.array_equal(image(pipe), plain)
