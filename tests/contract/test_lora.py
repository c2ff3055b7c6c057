"""LoRA at run time: what diffusers' methods promise, on the engines of every backend that takes other weights."""

import numpy as np
import pytest
import tiny_loras
import torch
from backends import usable
from safetensors.torch import load_file
from trt import refit

import sdtrt
from sdtrt import engines
from sdtrt.engines import accuracy
from sdtrt.errors import ConfigError, EngineError, ModelError, Unsupported, VerifyError
from sdtrt.pipelines import eager_pipeline
from sdtrt.pipelines.engine_loading import engines_of, load_engines
from sdtrt.shapes.sample_inputs import sample_inputs
from sdtrt.verification import image_metrics

# Inductor's bundle here is of another model and makes no images: see engines/test_inductor_weights.py.
COMPUTING = [n for n in engines.names() if engines.load(n).is_numeric and n != "inductor"]
PARTS = ("text_encoder", "text_encoder_2", "unet")
CALL = {"num_inference_steps": 2, "output_type": "np"}

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    # What peft says when diffusers loads a second adapter.
    pytest.mark.filterwarnings("ignore:Already found a `peft_config` attribute:UserWarning"),
]


@pytest.fixture(scope="module", params=COMPUTING)
def backend(request, cache):
    with usable(request.param, cache):
        yield request.param


@pytest.fixture(scope="module")
def bundle(backend, bundles, models, cache):
    """The U-Net and the text encoder of sd1; TensorRT's engines take other weights only when asked at the build."""
    if backend != "tensorrt":
        return bundles("sd1", backend)
    return refit.build(cache, models, refit="all")


@pytest.fixture(scope="module")
def files(models, tmp_path_factory):
    """{name: file}: two LoRAs of sd1, one for its U-Net alone, and one of sdxl."""
    folder = tmp_path_factory.mktemp("loras")
    return {
        "fox": tiny_loras.make(folder / "fox.safetensors", models["sd1"], 1),
        "ink": tiny_loras.make(folder / "ink.safetensors", models["sd1"], 2),
        "unet": tiny_loras.make(folder / "unet.safetensors", models["sd1"], 3, ["unet"]),
        "sdxl": tiny_loras.make(folder / "sdxl.safetensors", models["sdxl"], 4),
    }


@pytest.fixture(scope="module")
def stock(models):
    """Diffusers' own pipeline."""
    return eager_pipeline.eager(models["sd1"])


@pytest.fixture(scope="module")
def shared_pipe(bundle, models):
    return sdtrt.accelerate(eager_pipeline.eager(models["sd1"]), bundle)


@pytest.fixture(scope="module")
def plain(shared_pipe):
    """What the engines give and the image that they make before any change."""
    return outputs(shared_pipe), image(shared_pipe)


@pytest.fixture
def pipe(shared_pipe, stock, plain):
    """The pipeline with engines, without adapters at the start and, to the bit, after every test."""
    yield shared_pipe
    shared_pipe.unfuse_lora()
    shared_pipe.unload_lora_weights()
    stock.unload_lora_weights()
    assert same_bits(outputs(shared_pipe), plain[0])


def image(pipe, size=64):
    noise = torch.Generator().manual_seed(1)
    return pipe("a red fox", generator=noise, height=size, width=size, **CALL).images


def outputs(pipe):
    """Of all engines that adapters go into, at their least size."""
    found = {n: e for n, e in engines_of(pipe).items() if n in PARTS}
    return {(n, o): t for n, e in found.items() for o, t in e(**inputs_of(e)).items()}


def inputs_of(engine):
    return sample_inputs(engine.spec, engine.context.profiles[0].sizes("min"))


def same_bits(got, want):
    return all(torch.equal(got[name], want[name]) for name in want)


def same(pipe, stock):
    return image_metrics.psnr(image(pipe), image(stock)) >= 60


def each_loads(files, *names):
    """A function that loads adapters under their names into pipelines."""

    def load(*pipes):
        for pipe in pipes:
            for name in names:
                pipe.load_lora_weights(str(files[name]), adapter_name=name)

    return load


# ------------------------------------------------------------------------------------ weights by name


def check_every_parameter(engine, folder):
    """Change all parameters at once: one that an optimization had merged or folded away would keep its old value."""
    module = engine.spec.load(folder)
    state = module.inner.state_dict()
    weights = engine.weights()
    for name, tensor in weights.read(state).items():
        assert torch.equal(tensor, state[name]), name
    shared = weights.shared(state)
    before = engine(**inputs_of(engine))
    noise = torch.Generator().manual_seed(0)
    changed = {
        name: tensor + 0.1 * tensor.std() * torch.randn(tensor.shape, generator=noise)
        for name, tensor in state.items()
        if name not in shared and tensor.is_floating_point() and tensor.numel() > 1
    }
    module.inner.load_state_dict(changed, strict=False)
    sizes = engine.context.profiles[0].sizes("min")
    assert accuracy.component_error(engine, module, sizes) > 1e-2, "the change is one"
    weights.put(changed)
    assert accuracy.component_error(engine, module, sizes) <= accuracy.LIMITS["fp32"][0]
    assert weights.changed == changed.keys()
    for name, tensor in weights.read(state).items():
        assert torch.equal(tensor, state[name]) or name in changed, name
    weights.put({})
    assert same_bits(engine(**inputs_of(engine)), before)
    assert not weights.changed
    return shared


@pytest.mark.parametrize("component", ["unet", "text_encoder"])
def test_every_parameter_can_be_replaced(bundle, models, component):
    assert not check_every_parameter(load_engines(bundle)[component], models["sd1"])


@pytest.mark.parametrize("family", ["sd2", "sdxl"])
def test_every_parameter_of_other_families_can_be_replaced(bundles, models, family):
    for name, engine in load_engines(bundles(family)).items():
        if name in PARTS:
            shared = check_every_parameter(engine, models[family])
            # Random weights have many equal norms and biases, of which the exporter keeps one; no layer's weight is.
            assert all("norm" in n or n.endswith(("bias", "position_ids")) for n in shared), shared


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("nowhere.weight", torch.zeros(4)),
        ("conv_in.bias", torch.zeros(3)),
        ("conv_in.bias", torch.zeros(32, dtype=torch.float64)),
    ],
)
def test_weights_that_do_not_fit_change_nothing(shared_pipe, plain, name, value):
    weights = shared_pipe.unet.engines["unet"].weights()
    fitting = weights.read(["conv_out.bias"])["conv_out.bias"] + 1
    with pytest.raises(EngineError) as caught:
        weights.put({"conv_out.bias": fitting, name: value})
    assert caught.value.slug in {"refit-weight", "refit-fixed"}
    assert name in caught.value.received
    assert not weights.changed
    assert same_bits(outputs(shared_pipe), plain[0])


# ------------------------------------------------------------------------------------ what adapters do


def test_an_adapter_does_what_it_does_in_diffusers(pipe, stock, files, plain):
    each_loads(files, "fox")(pipe, stock)
    assert same(pipe, stock)
    assert image_metrics.psnr(image(pipe), plain[1]) < 45, "the adapter does something"
    assert pipe.get_list_adapters() == stock.get_list_adapters()


def test_two_adapters_with_weights_below_zero_and_above_one(pipe, stock, files):
    each_loads(files, "fox", "ink")(pipe, stock)
    for each in (pipe, stock):
        each.set_adapters(["fox", "ink"], [-0.5, 1.5])
    assert same(pipe, stock)
    assert pipe.get_active_adapters() == ["fox", "ink"]


def test_weights_may_differ_by_part_and_block(pipe, stock, files):
    each_loads(files, "fox")(pipe, stock)
    for each in (pipe, stock):
        each.set_adapters("fox", [{"text_encoder": 0.5, "unet": {"down": 0.9, "mid": 0.2, "up": 1.2}}])
    assert same(pipe, stock)


def test_unloading_restores_the_image_to_the_bit(pipe, files, plain):
    pipe.load_lora_weights(str(files["fox"]))
    pipe.set_adapters("default_0", 2.5)
    assert not np.array_equal(image(pipe), plain[1])
    pipe.unload_lora_weights()
    assert np.array_equal(image(pipe), plain[1])
    assert pipe.get_list_adapters() == {}


def test_one_style_leaves_nothing_in_the_next(pipe, files, plain):
    each_loads(files, "ink")(pipe)
    alone = outputs(pipe)
    assert not same_bits(alone, plain[0])
    each_loads(files, "fox")(pipe)
    pipe.set_adapters("ink")
    assert same_bits(outputs(pipe), alone)
    pipe.delete_adapters("fox")
    pipe.disable_lora()
    assert same_bits(outputs(pipe), plain[0])
    pipe.enable_lora()
    assert same_bits(outputs(pipe), alone)


def test_what_is_fused_stays_when_adapters_are_unloaded(pipe, stock, files):
    each_loads(files, "fox")(pipe, stock)
    pipe.fuse_lora(lora_scale=0.6)
    pipe.fuse_lora()  # counts once
    stock.set_adapters("fox", 0.6)
    assert same(pipe, stock)
    pipe.unload_lora_weights()
    each_loads(files, "ink")(pipe, stock)
    stock.set_adapters(["fox", "ink"], [0.6, 1.0])
    assert same(pipe, stock), "another adapter comes on top"


def test_fusing_a_loaded_adapter_and_back_changes_nothing(pipe, files):
    each_loads(files, "fox")(pipe)
    loaded = outputs(pipe)
    pipe.fuse_lora()
    assert same_bits(outputs(pipe), loaded)
    pipe.unfuse_lora()
    assert same_bits(outputs(pipe), loaded)


def test_only_engines_that_an_adapter_is_for_get_other_weights(pipe, files):
    pipe.load_lora_weights({k: v for k, v in load_file(files["fox"]).items() if k.startswith("unet.")}, "given")
    assert [part.part for part in pipe.lora_switch.last.parts] == ["unet"]
    each_loads(files, "fox")(pipe)
    pipe.set_adapters(["fox", "given"], [1.0, 0.5])
    assert [part.part for part in pipe.lora_switch.last.parts] == ["unet"], "what stays the same is not put again"


def test_the_last_switch_says_how_long_it_took(pipe, files):
    each_loads(files, "fox")(pipe)
    last = pipe.lora_switch.last
    assert last.method == "load_lora_weights"
    assert {part.part for part in last.parts} == {"text_encoder", "unet"}
    assert 0 < sum(part.total_ms for part in last.parts) < last.total_ms
    assert all(part.weights and f"{part.part} {part.total_ms:.0f} ms" in str(last) for part in last.parts)


def test_changes_made_together_are_one_switch(pipe, stock, files, plain):
    with pipe.lora_switch.together():
        each_loads(files, "fox", "ink")(pipe)
        assert same_bits(outputs(pipe), plain[0])
        pipe.set_adapters(["fox", "ink"], [0.5, 0.5])
    each_loads(files, "fox", "ink")(stock)
    stock.set_adapters(["fox", "ink"], [0.5, 0.5])
    assert same(pipe, stock)
    assert pipe.lora_switch.last.method == "together"


# ------------------------------------------------------------------------------------ sdxl


def test_three_parts_of_sdxl(bundles, models, files):
    stock, pipe = eager_pipeline.eager(models["sdxl"]), sdtrt.load(bundles("sdxl"))
    before, plain = outputs(pipe), image(pipe, 128)
    each_loads(files, "sdxl")(pipe, stock)
    for each in (pipe, stock):
        each.set_adapters("sdxl", -1.5)
    assert {part.part for part in pipe.lora_switch.last.parts} == set(PARTS)
    assert image_metrics.psnr(image(pipe, 128), image(stock, 128)) >= 60
    assert image_metrics.psnr(image(pipe, 128), plain) < 45
    pipe.unload_lora_weights()
    assert same_bits(outputs(pipe), before)


# ------------------------------------------------------------------------------------ what goes wrong


def spoilt(files, change):
    """The tensors of a LoRA, one of the U-Net's changed."""
    tensors = load_file(files["fox"])
    name = next(n for n in tensors if n.startswith("unet.") and "to_q.lora_B" in n)
    return tensors | {name: change(tensors[name])}


@pytest.mark.parametrize(
    ("change", "slug"),
    [
        (lambda t: t * torch.nan, "lora-overflow"),
        (lambda t: t * 1e39, "lora-overflow"),
        (lambda t: t[:-1], "lora-keys"),
        (lambda t: torch.cat([t, t], dim=1), "lora-mismatch"),
    ],
    ids=["NaN", "infinite", "another width", "another rank"],
)
def test_a_damaged_adapter_changes_nothing(pipe, files, plain, change, slug):
    with pytest.raises(ModelError) as caught:
        pipe.load_lora_weights(spoilt(files, change))
    assert caught.value.slug == slug
    assert same_bits(outputs(pipe), plain[0])
    assert pipe.get_list_adapters() == {}


def test_an_adapter_of_another_family_changes_nothing(pipe, files, plain):
    with pytest.raises(ModelError) as caught:
        pipe.load_lora_weights(str(files["sdxl"]))
    assert caught.value.slug == "lora-keys"
    assert "lora_A" in caught.value.received
    assert same_bits(outputs(pipe), plain[0])
    assert pipe.get_list_adapters() == {}


def test_weights_with_which_nothing_finite_comes_out_are_taken_back(pipe, files, plain):
    each_loads(files, "fox")(pipe)
    loaded = outputs(pipe)
    with pytest.raises(VerifyError) as caught:
        pipe.set_adapters("fox", 1e25)
    assert caught.value.slug == "verify-refit"
    assert same_bits(outputs(pipe), plain[0])
    assert pipe.get_active_adapters() == []
    pipe.set_adapters("fox", 1.0)
    assert same_bits(outputs(pipe), loaded)


def test_an_error_among_changes_made_together_undoes_all(pipe, files, plain):
    with pytest.raises(ModelError), pipe.lora_switch.together():
        each_loads(files, "fox", "sdxl")(pipe)
    assert same_bits(outputs(pipe), plain[0])
    assert pipe.get_active_adapters() == []


def test_a_name_is_given_once(pipe, files):
    each_loads(files, "fox")(pipe)
    with pytest.raises(ConfigError) as caught:
        pipe.load_lora_weights(str(files["ink"]), adapter_name="fox")
    assert caught.value.slug == "lora-name"


def test_an_adapter_that_changes_merged_weights_is_refused(pipe, files, plain, monkeypatch):
    unet = pipe.unet.engines["unet"].weights()
    monkeypatch.setattr(type(unet), "shared", lambda self, names: frozenset(names))
    with pytest.raises(ModelError) as caught:
        pipe.load_lora_weights(str(files["fox"]))
    assert caught.value.slug == "lora-shared"
    assert "to_q.weight" in caught.value.received or "q_proj.weight" in caught.value.received
    assert same_bits(outputs(pipe), plain[0])


def test_a_component_that_is_not_there(pipe):
    with pytest.raises(ConfigError, match="vae"):
        pipe.fuse_lora(components=["vae"])


def test_engines_with_fixed_weights_refuse_with_what_to_do(bundles):
    pipe = sdtrt.load(bundles("sd1", "fake"))
    with pytest.raises(Unsupported, match=r"--lora FILE.*refit: all"):
        pipe.load_lora_weights("anything")
