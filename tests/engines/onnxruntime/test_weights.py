"""Other weights in engines of ONNX Runtime: what is more than contract/test_lora.py asks of all backends."""

import onnxruntime
import pytest
import tiny_loras
import torch

from sdtrt import lora
from sdtrt.errors import EngineError
from sdtrt.pipelines import engine_loading
from sdtrt.shapes.sample_inputs import sample_inputs

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def engine(bundles):
    return engine_loading.load_engines(bundles())["text_encoder"]


def output(engine):
    inputs = sample_inputs(engine.spec, engine.context.profiles[0].sizes("min"))
    return engine(**inputs)["last_hidden_state"]


def test_a_session_that_cannot_be_opened_leaves_the_weights_of_the_build(
    engine, bundles, models, tmp_path, monkeypatch
):
    before, real = output(engine), onnxruntime.InferenceSession
    file = tiny_loras.make(tmp_path / "fox.safetensors", models["sd1"], 1, ["text_encoder"])
    switch = lora.LoraSwitch({"text_encoder": engine}, {}, bundles().pipeline_folder, xl=False)

    def too_large(source, *args, **kwargs):
        if isinstance(source, bytes):
            raise RuntimeError("Failed to allocate memory")
        return real(source, *args, **kwargs)

    monkeypatch.setattr(onnxruntime, "InferenceSession", too_large)
    with pytest.raises(EngineError) as caught:
        switch.load_lora_weights(file)
    monkeypatch.undo()
    assert caught.value.slug == "refit-failed"
    assert "Failed to allocate memory" in caught.value.received
    assert not engine.weights().changed
    assert torch.equal(output(engine), before)
    switch.load_lora_weights(file)
    assert not torch.equal(output(engine), before)


def test_there_are_never_two_sessions(engine, monkeypatch):
    real, gone = engine._open, []

    def opening(*args, **kwargs):
        gone.append(engine._session is None)
        return real(*args, **kwargs)

    monkeypatch.setattr(engine, "_open", opening)
    name = "encoder.layers.0.mlp.fc1.weight"
    engine.weights().put({name: engine.weights().read([name])[name] * 2})
    engine.weights().put({})
    assert gone == [True, True]


def test_weights_may_be_freed_when_they_are_in_the_engine(engine):
    names = ["encoder.layers.0.mlp.fc1.weight", "embeddings.token_embedding.weight", "final_layer_norm.bias"]
    given = {name: tensor * 1.5 for name, tensor in engine.weights().read(names).items()}
    engine.weights().put(given)
    changed = output(engine)
    for tensor in given.values():
        tensor.fill_(torch.nan)
    assert torch.equal(output(engine), changed)


def test_a_profile_holds_the_weights_once(engine, monkeypatch):
    """The runtime keeps the weights of a graph that it writes, beside those that it packed to compute with."""
    real, written, timed = onnxruntime.InferenceSession, [], []

    def opening(source, settings, **kwargs):
        if settings.optimized_model_filepath:
            written.append(settings.get_session_config_entry("session.disable_prepacking"))
        timed.append(settings.enable_profiling and not settings.optimized_model_filepath)
        return real(source, settings, **kwargs)

    monkeypatch.setattr(onnxruntime, "InferenceSession", opening)
    sizes = engine.context.profiles[0].sizes("min")
    plan = engine.profile(sample_inputs(engine.spec, sizes), sizes, 1)
    assert (written, timed) == (["1"], [False, True])
    assert sum(len(layer.times_ms or ()) for layer in plan.layers) > 0.9 * len(plan.layers)
