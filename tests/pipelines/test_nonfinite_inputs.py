"""What a Watch does to an engine's inputs: those that stay the same for an image are summed once, on a CPU none is."""

import weakref

import pytest
import torch

import sdtrt
from sdtrt.errors import NonFiniteError
from sdtrt.pipelines import nonfinite as watching
from sdtrt.pipelines.nonfinite import NonFiniteDetector

NAN = float("nan")


@pytest.fixture
def summed(monkeypatch):
    """Tensors that were summed, by their address."""
    found, plain = [], torch.sum

    def count(tensor, *arguments, **named):
        found.append(tensor.data_ptr())
        return plain(tensor, *arguments, **named)

    monkeypatch.setattr(torch, "sum", count)
    return found


def steps(detector, prompt, count, asynchronous=True, made=0.0):
    kept = []
    for step in range(count):
        sample, out = torch.zeros(2, 4), torch.full((2, 4), made)
        kept.append(sample)  # so that none has the address of another
        given = {"sample": sample, "encoder_hidden_states": prompt}
        timestep = torch.tensor(900.0 - step)
        detector.record("unet", given, {"out_sample": out}, timestep, half=True, asynchronous=asynchronous)
    return kept


def test_the_prompt_is_summed_once_and_latents_in_every_step(summed):
    prompt = torch.zeros(2, 77, 8)
    samples = steps(NonFiniteDetector(), prompt, 10)
    assert summed.count(prompt.data_ptr()) == 1
    assert [summed.count(sample.data_ptr()) for sample in samples] == [1] * 10


def test_the_next_image_with_the_same_prompt_does_not_sum_it_again(summed):
    prompt, detector = torch.zeros(2, 77, 8), NonFiniteDetector()
    for _ in range(2):
        steps(detector, prompt, 3)
        detector.finish()
    assert summed.count(prompt.data_ptr()) == 1


def test_a_prompt_that_changes_in_place_is_seen():
    prompt, detector = torch.zeros(2, 77, 8), NonFiniteDetector()
    steps(detector, prompt, 2)
    prompt[1, 3, 2] = NAN
    steps(detector, prompt, 1, made=NAN)
    with pytest.raises(NonFiniteError, match="encoder_hidden_states already had it"):
        detector.finish()


def test_another_prompt_is_seen_though_it_took_the_place_of_the_first():
    detector = NonFiniteDetector()
    for value in (0.0, NAN):
        steps(detector, torch.full((2, 77, 8), value), 1, made=value)
    with pytest.raises(NonFiniteError, match="encoder_hidden_states already had it"):
        detector.finish()


def test_tensors_of_inference_mode_are_always_summed(summed):
    with torch.inference_mode():
        prompt = torch.zeros(2, 77, 8)
        steps(NonFiniteDetector(), prompt, 3)
    assert summed.count(prompt.data_ptr()) == 3, "nobody counts their changes"


def test_no_tensor_is_kept_alive():
    detector, prompt = NonFiniteDetector(), torch.zeros(2, 77, 8)
    kept = weakref.ref(prompt)
    steps(detector, prompt, 1)
    del prompt
    assert kept() is None


def test_on_a_cpu_inputs_are_looked_at_when_an_error_is_written_and_not_before(summed):
    prompt, detector = torch.full((2, 77, 8), NAN), NonFiniteDetector()
    samples = steps(detector, prompt, 5, asynchronous=False)
    assert not {prompt.data_ptr(), *(s.data_ptr() for s in samples)} & {*summed}
    with pytest.raises(NonFiniteError, match="encoder_hidden_states already had it") as caught:
        steps(detector, prompt, 1, asynchronous=False, made=NAN)
    assert "the prompt's embeddings" in caught.value.hint


def test_a_pipeline_gives_the_same_prompt_in_every_step(bundles, monkeypatch):
    counts, record, sums = {}, NonFiniteDetector.record, watching._sum

    def waiting(self, component, given, made, timestep=None, **how):
        monkeypatch.setattr(watching, "_sum", lambda t: counts.update({id(t): counts.get(id(t), 0) + 1}) or sums(t))
        record(self, component, given, made, timestep, **{**how, "asynchronous": True})
        if component == "unet":
            seen.append(given["encoder_hidden_states"])

    seen = []
    monkeypatch.setattr(NonFiniteDetector, "record", waiting)
    pipe = sdtrt.load(bundles("sd1", "fake"))
    pipe.set_progress_bar_config(disable=True)
    pipe("x", num_inference_steps=4, output_type="latent")
    assert len(seen) == 4
    assert counts[id(seen[-1])] == 1
