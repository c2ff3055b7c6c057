"""LoRA at run time in engines of TensorRT's double: what is more than contract/test_lora.py asks of all backends."""

import numpy as np
import onnx
import pytest
import tiny_loras
import torch
from trt import bindings, refit, use

import sdtrt
from sdtrt import lora
from sdtrt import models as families
from sdtrt.config import LoraEntry
from sdtrt.errors import EngineError, Unsupported, VerifyError
from sdtrt.pipelines import eager_pipeline
from sdtrt.pipelines.engine_loading import load_engines
from sdtrt.verification import image_metrics

CALL = {"num_inference_steps": 2, "output_type": "np"}

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    # What peft says when diffusers loads a second adapter.
    pytest.mark.filterwarnings("ignore:Already found a `peft_config` attribute:UserWarning"),
]


@pytest.fixture(scope="module")
def newest(apis, cache):
    with use.tensorrt(bindings.NEWEST, cache):
        yield bindings.NEWEST


@pytest.fixture(scope="module")
def files(models, tmp_path_factory):
    """Two LoRAs."""
    folder = tmp_path_factory.mktemp("loras")
    return {n: tiny_loras.make(folder / f"{n}.safetensors", models["sd1"], i) for i, n in enumerate(("fox", "ink"))}


@pytest.fixture(scope="module")
def stock(models):
    """Diffusers' own pipeline."""
    return eager_pipeline.eager(models["sd1"])


@pytest.fixture(scope="module")
def shared_pipe(newest, cache, models):
    return sdtrt.accelerate(eager_pipeline.eager(models["sd1"]), refit.build(cache, models, refit="all"))


@pytest.fixture
def pipe(shared_pipe, stock):
    """The pipeline with engines, without adapters at the start and at the end of a test."""
    yield shared_pipe
    shared_pipe.unfuse_lora()
    shared_pipe.unload_lora_weights()
    shared_pipe.enable_lora()
    stock.unload_lora_weights()


def image(pipe):
    noise = torch.Generator().manual_seed(1)
    return pipe("a red fox", generator=noise, height=64, width=64, **CALL).images


def engines_of(pipe):
    return {name: engine for part in (pipe.text_encoder, pipe.unet) for name, engine in part.engines.items()}


def inside(pipe):
    """Every weight in the engines, as bytes."""
    return {
        (name, t.name): onnx.numpy_helper.to_array(t).tobytes()
        for name, engine in engines_of(pipe).items()
        for t in engine.session.engine._plan.model.graph.initializer
    }


def same(pipe, stock):
    return image_metrics.psnr(image(pipe), image(stock)) >= 60


# ------------------------------------------------------------------------------------ what adapters do


def test_the_weights_in_the_engine_are_those_of_a_module_with_the_adapters_baked_in(pipe, files, models):
    folder = models["sd1"]
    specs = families.family_of(folder).components(folder, "fp32")
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


def test_graphs_are_captured_anew(pipe, stock, files):
    image(pipe)
    image(pipe)
    captured = engines_of(pipe)["unet"].session.stats.as_json()["captured"]
    for each in (pipe, stock):
        each.load_lora_weights(str(files["fox"]))
    for _ in range(2):
        assert same(pipe, stock)
    assert engines_of(pipe)["unet"].session.stats.as_json()["captured"] > captured


# ------------------------------------------------------------------------------------ what goes wrong


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


def test_a_weight_that_the_engine_does_not_let_go(pipe, files, monkeypatch):
    import tensorrt as trt

    every = trt.Refitter.get_all_weights
    monkeypatch.setattr(trt.Refitter, "get_all_weights", lambda self: every(self)[::2])
    with pytest.raises(EngineError) as caught:
        pipe.load_lora_weights(str(files["fox"]))
    assert caught.value.slug == "refit-fixed"
    assert "refit: all" in caught.value.hint


# ------------------------------------------------------------------------------------ other engines


@pytest.mark.parametrize("kind", ["none", "identical"])
def test_engines_that_keep_their_weights_refuse_with_what_to_do(newest, cache, models, kind):
    bundle = refit.build(cache, models, ["text_encoder"], refit=kind)
    pipe = sdtrt.accelerate(eager_pipeline.eager(models["sd1"]), bundle)
    with pytest.raises(Unsupported, match="refit: all"):
        pipe.load_lora_weights("anything")


def test_half_precision_engines_take_half_precision_weights(newest, cache, models, tmp_path):
    bundle = refit.build(cache, models, ["text_encoder"], "fp16", refit="all")
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
    bundle = refit.build(cache, models, ["text_encoder"], refit="all")
    file = tiny_loras.make(tmp_path / "fox.safetensors", models["sd1"], 1)
    stock = eager_pipeline.eager(models["sd1"])
    pipe = sdtrt.accelerate(eager_pipeline.eager(models["sd1"]), bundle, options={"refit_check": False})
    plain = image(pipe)
    for each in (pipe, stock):
        each.load_lora_weights(str(file), adapter_name="fox")
    assert same(pipe, stock)
    pipe.fuse_lora()
    pipe.unload_lora_weights()
    assert same(pipe, stock), "fused in the engine and in the module"
    pipe = sdtrt.accelerate(eager_pipeline.eager(models["sd1"]), bundle)
    pipe.load_lora_weights(str(file), adapter_name="fox")
    pipe.unload_lora_weights()
    assert np.array_equal(image(pipe), plain)
