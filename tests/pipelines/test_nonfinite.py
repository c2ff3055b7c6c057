"""NaN at run time: which engine, at which step, and what a caller may ask for."""

import pytest
import torch

import sdtrt
from sdtrt.errors import NonFiniteError, NonFiniteWarning
from sdtrt.pipelines.nonfinite import NonFiniteDetector


@pytest.fixture
def spoilt(bundles):
    """load(component, calls, **settings): a pipeline on waves, one engine of which gives NaN at these calls."""

    def load(component, calls, **settings):
        pipe = sdtrt.load(bundles("sd1", "fake"), **settings)
        pipe.set_progress_bar_config(disable=True)
        engine = next(e for m in (pipe.text_encoder, pipe.unet, pipe.vae) if (e := m.engines.get(component)))
        run = engine._run

        def spoil(tensors):
            outputs = run(tensors)
            if engine.calls + 1 in calls:
                for tensor in outputs.values():
                    tensor[..., 0] = float("nan")
            return outputs

        engine._run = spoil
        return pipe

    return load


def test_a_latent_that_is_no_number_is_reported_with_its_step(spoilt):
    pipe = spoilt("unet", [3])
    with pytest.raises(NonFiniteError) as caught:
        pipe("x", num_inference_steps=4)
    error = caught.value
    assert (error.component, error.step) == ("unet", 3)
    assert error.timestep == float(pipe.scheduler.timesteps[2])
    assert f"unet gave NaN or Inf at step 3 (timestep {error.timestep:g})" in str(error)
    assert "samples 1, 2 of 2" in str(error)
    assert "sdtrt verify" in error.hint


def test_the_next_image_starts_anew(spoilt):
    pipe = spoilt("unet", [3])
    with pytest.raises(NonFiniteError):
        pipe("x", num_inference_steps=4)
    assert pipe("x", num_inference_steps=1).images
    pipe.unet.engines["unet"].calls = 2
    with pytest.raises(NonFiniteError) as caught:
        pipe("x", num_inference_steps=1)
    assert caught.value.step == 1


@pytest.mark.parametrize("component", ["vae_decoder", "text_encoder"])
def test_other_engines_are_named(spoilt, component):
    with pytest.raises(NonFiniteError) as caught:
        spoilt(component, [1])("x", num_inference_steps=1)
    assert (caught.value.component, caught.value.step) == (component, None)


def test_a_warning_is_given_once_and_the_image_all_the_same(spoilt):
    pipe = spoilt("unet", range(2, 9), on_nonfinite="warn")
    with pytest.warns(NonFiniteWarning, match=r"unet gave NaN or Inf at step 2") as told:
        latents = pipe("x", num_inference_steps=4, output_type="latent").images
    assert len(told) == 1
    assert latents.isnan().any()


def test_it_can_be_ignored(spoilt):
    pipe = spoilt("unet", [2], on_nonfinite="ignore")
    assert pipe("x", num_inference_steps=3, output_type="latent").images.isnan().any()


def test_latents_that_came_in_bad_are_not_laid_on_the_unet(spoilt):
    pipe = spoilt("unet", [1])
    latents = torch.full((1, 4, 16, 16), float("inf"))
    with pytest.raises(NonFiniteError, match="its input sample already had it") as caught:
        pipe("x", num_inference_steps=1, latents=latents)
    assert "start latents" in caught.value.hint


# ------------------------------------------------------------------------------- on a GPU, where nothing may wait


class Reading(torch.Tensor):
    """Counts how often a value is fetched from the device."""

    fetched = 0

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        if function in (torch.Tensor.__bool__, torch.Tensor.__float__, torch.Tensor.item, torch.Tensor.tolist):
            cls.fetched += 1
        return super().__torch_function__(function, types, args, kwargs or {})


@pytest.fixture(autouse=True)
def nothing_fetched():
    Reading.fetched = 0


def step(detector, timestep, value=0.0):
    out = torch.zeros(2, 4, dtype=torch.float16)
    out[1, 2] = value
    tensors = {"sample": torch.zeros(2, 4).as_subclass(Reading)}
    made, at = {"out_sample": out.as_subclass(Reading)}, torch.tensor(timestep).as_subclass(Reading)
    detector.record("unet", tensors, made, at, half=True, asynchronous=True)


def test_on_a_gpu_nothing_is_fetched_until_the_end():
    detector = NonFiniteDetector()
    for timestep in (900.0, 600.0, 300.0):
        step(detector, timestep, float("inf") if timestep < 900 else 0.0)
    assert Reading.fetched == 0
    with pytest.raises(NonFiniteError, match=r"step 2 \(timestep 600\)") as caught:
        detector.finish()
    assert "samples 2 of 2" in str(caught.value)
    assert "float32: [...]" in caught.value.hint
    detector.finish()  # told once


def test_steps_are_those_of_the_image_though_an_earlier_one_was_broken_off():
    detector = NonFiniteDetector()
    for timestep in (900.0, 600.0, 950.0, 500.0):
        step(detector, timestep, float("nan") if timestep == 500 else 0.0)
    with pytest.raises(NonFiniteError, match=r"step 2 \(timestep 500\)"):
        detector.finish()


def test_a_unet_that_is_called_by_hand_is_looked_at_now_and_then():
    detector = NonFiniteDetector("warn")
    with pytest.warns(NonFiniteWarning, match="step 1"):
        [step(detector, 999.0 - n, float("nan") if n == 0 else 0.0) for n in range(300)]


def test_large_half_precision_numbers_are_numbers():
    detector = NonFiniteDetector()
    out = torch.full((1, 4096), 60000.0, dtype=torch.float16)
    detector.record("unet", {}, {"out_sample": out}, torch.tensor(1.0), half=True, asynchronous=True)
    detector.finish()
