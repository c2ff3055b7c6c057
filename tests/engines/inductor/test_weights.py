"""Other weights in compiled code: they are its arguments, so that a LoRA needs no rebuild and leaves no trace."""

from pathlib import Path

import pytest
import tiny_loras
import torch

import sdtrt
from sdtrt.engines import accuracy
from sdtrt.errors import EngineError
from sdtrt.pipelines import eager_pipeline, engine_loading
from sdtrt.shapes.sample_inputs import sample_inputs

TO_Q = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.weight"
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def bundle(bundles):
    return bundles("sd1", "inductor")


@pytest.fixture(scope="module")
def loaded(bundle):
    return engine_loading.load_engines(bundle)


@pytest.fixture(params=["text_encoder", "unet"])
def engine(request, loaded):
    return loaded[request.param]


def inputs_of(engine):
    return sample_inputs(engine.spec, {"B": 1, "H": 64, "W": 64, "T": 77})


def changed_a_little(state):
    noise = torch.Generator().manual_seed(0)
    return {
        name: tensor + 0.1 * tensor.std() * torch.randn(tensor.shape, generator=noise)
        for name, tensor in state.items()
        if tensor.is_floating_point() and tensor.numel() > 1
    }


def test_all_parameters_can_change_and_come_back_to_the_bit(engine, bundle):
    """One that was merged with others, or lies in the part that runs once per prompt, is no exception."""
    inputs, weights = inputs_of(engine), engine.weights()
    module = engine.spec.load(Path(bundle.manifest.model))
    state = module.inner.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in weights.read(state).items())
    before = {n: t.clone() for n, t in engine(**inputs).items()}
    others = changed_a_little(state)
    weights.put(others)
    module.inner.load_state_dict(others, strict=False)
    with torch.no_grad():
        expected = module(**inputs)
    assert accuracy.worst_error(tuple(engine(**inputs).values()), expected) < 1e-4
    assert accuracy.worst_error(tuple(before.values()), expected) > 1e-2
    assert weights.changed == others.keys()
    weights.put({})
    assert all(torch.equal(t, before[n]) for n, t in engine(**inputs).items())
    assert not weights.changed


def test_a_change_replaces_the_one_before(loaded):
    engine = loaded["unet"]
    inputs, weights = inputs_of(engine), engine.weights()
    base = weights.read([TO_Q, TO_Q.replace("to_q", "to_k")])
    once = {TO_Q: base[TO_Q] * 2}
    weights.put(once)
    alone = engine(**inputs)["out_sample"].clone()
    weights.put({name: tensor * 3 for name, tensor in base.items()})
    weights.put(once)
    assert torch.equal(engine(**inputs)["out_sample"], alone)
    weights.put({})


@pytest.mark.parametrize(
    ("name", "tensor", "words"),
    [(TO_Q, torch.zeros(32), "cannot be replaced"), ("no.such.weight", torch.zeros(1), "no.such.weight")],
)
def test_what_does_not_fit_is_refused_and_changes_nothing(loaded, name, tensor, words):
    engine = loaded["unet"]
    inputs, weights = inputs_of(engine), engine.weights()
    before = engine(**inputs)["out_sample"]
    with pytest.raises(EngineError, match=words):
        weights.put({"conv_in.bias": torch.ones(32), name: tensor})
    assert torch.equal(engine(**inputs)["out_sample"], before)


def test_lora_by_diffusers_own_methods(bundle, tmp_path):
    """The same latents as diffusers' own with the adapter, and those of before to the bit without it."""
    model = Path(bundle.manifest.model)
    file = str(tiny_loras.make(tmp_path / "fox.safetensors", model, 1))
    mine, stock = sdtrt.accelerate(eager_pipeline.eager(model), bundle), eager_pipeline.eager(model)

    def latents(pipe):
        noise = torch.Generator().manual_seed(0)
        call = {"height": 64, "width": 64, "num_inference_steps": 2, "output_type": "latent"}
        return pipe("a red fox", generator=noise, **call).images

    before = latents(mine)
    for pipe in (mine, stock):
        pipe.load_lora_weights(file)
    changed = latents(mine)
    torch.testing.assert_close(changed, latents(stock), rtol=1e-3, atol=1e-3)
    assert not torch.allclose(changed, before, rtol=1e-2, atol=1e-2)
    mine.unload_lora_weights()
    assert torch.equal(latents(mine), before)
