"""Many callers on one pipeline: each gets what it would get alone, to the bit, and the counts are right."""

import gc
import weakref
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import numpy as np
import pytest
import torch

import sdtrt
from sdtrt import engines
from sdtrt.pipelines import eager_pipeline, engine_loading, thread_safety
from sdtrt.pipelines.timed_call import timed

# Inductor's bundle here makes no images; test_engines.py calls its engines from several threads.
COMPUTING = [n for n in engines.names() if engines.load(n).is_numeric and n != "inductor"]
CALLERS = 16
SIZE = {"height": 64, "width": 64}

pytestmark = pytest.mark.usefixtures("one_thread")
one_backend = pytest.mark.parametrize("backend", ["onnxruntime"], indirect=True)  # nothing below depends on it
every_backend = pytest.mark.parametrize("backend", COMPUTING, indirect=True)


@pytest.fixture
def pipe(bundles, backend):
    return opened(bundles("sd1", backend.name), backend)


def opened(bundle, backend, **given):
    """With one thread per call where that can be chosen: 16 callers with more would only wait for each other."""
    options = {"threads": 1} if "threads" in backend.options.model_fields else {}
    pipe = sdtrt.load(bundle, options=options, **given)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def image(pipe, number, **more):
    """Prompt, seed, steps and guidance follow from the number."""
    call = {
        "prompt": ["a red circle", "a blue star on a white background", ""][number % 3],
        "guidance_scale": [7.5, 1.0, 2.0, 12.0][number % 4],
        "num_inference_steps": 1 + number % 2,
        "clip_skip": [None, 1][number % 2],
    }
    noise = torch.Generator().manual_seed(number)
    return pipe(**SIZE | call | more, generator=noise, output_type="np").images


@every_backend
def test_callers_at_once_get_what_they_would_alone(pipe):
    alone = [image(pipe, number) for number in range(CALLERS)]
    before = {name: engine.calls for name, engine in engine_loading.engines_of(pipe).items()}
    start = Barrier(CALLERS)

    def call(number):
        start.wait()
        return timed(pipe, lambda: image(pipe, number), steps=1 + number % 2, images=1, **SIZE)

    with ThreadPoolExecutor(CALLERS) as pool:
        found = list(pool.map(call, range(CALLERS)))
    for number, (mine, timing) in enumerate(found):
        assert np.array_equal(mine, alone[number])
        counts = {name: calls.count for name, calls in timing.engines.items()}
        texts = 1 if number % 4 == 1 else 2  # guidance 1 asks for no negative prompt
        assert counts == {"text_encoder": texts, "unet": 1 + number % 2, "vae_decoder": 1}
        assert timing.guidance_scale == [7.5, 1.0, 2.0, 12.0][number % 4]
    for name, engine in engine_loading.engines_of(pipe).items():
        made = sum(timing.engines[name].count for _, timing in found if name in timing.engines)
        assert engine.calls == before[name] + made


@every_backend
def test_a_call_inside_another_leaves_no_trace(pipe):
    """At each step of a call a whole other one runs, in another thread: no luck is needed to interleave them."""
    outer, inner = image(pipe, 2), image(pipe, 3)
    found, seen = [], []

    def between(mine, step, timestep, tensors):
        seen.append(mine)
        with ThreadPoolExecutor(1) as pool:
            found.append(pool.submit(image, pipe, 3).result())
        return tensors

    assert np.array_equal(image(pipe, 2, callback_on_step_end=between), outer)
    assert [np.array_equal(other, inner) for other in found] == [True]
    assert seen == [pipe], "the first caller has the pipeline itself"


@one_backend
def test_a_scheduler_with_memory_is_not_shared(pipe):
    from diffusers import DPMSolverMultistepScheduler

    pipe.scheduler = DPMSolverMultistepScheduler.from_config(pipe.scheduler.config, algorithm_type="dpmsolver++")
    alone = image(pipe, 2), image(pipe, 5)

    def between(mine, step, timestep, tensors):
        assert np.array_equal(image(pipe, 5), alone[1])
        return tensors

    assert np.array_equal(image(pipe, 2, callback_on_step_end=between), alone[0])


@one_backend
def test_a_scheduler_set_while_a_call_runs_is_that_of_the_next(pipe):
    from diffusers import EulerDiscreteScheduler

    kept, new = pipe.scheduler, EulerDiscreteScheduler.from_config(pipe.scheduler.config)
    pipe.scheduler = new
    alone = image(pipe, 5)
    pipe.scheduler, found = kept, []

    def swap(mine, step, timestep, tensors):
        if not found:
            pipe.scheduler = new
            found.append(image(pipe, 5))
            pipe.scheduler = kept
        return tensors

    image(pipe, 2, callback_on_step_end=swap)
    assert np.array_equal(found[0], alone)


@one_backend
def test_an_error_or_an_interrupt_stays_with_its_caller(pipe):
    alone = image(pipe, 2)

    def stop(mine, step, timestep, tensors):
        mine._interrupt = True
        return tensors

    def disturb(mine, step, timestep, tensors):
        image(pipe, 5, callback_on_step_end=stop)
        with pytest.raises(ValueError, match="divisible"):
            image(pipe, 5, height=65)
        return tensors

    assert np.array_equal(image(pipe, 2, callback_on_step_end=disturb), alone)
    assert not thread_safety._in_use
    assert np.array_equal(image(pipe, 2), alone)


@one_backend
@pytest.mark.parametrize("task", ["img2img", "inpaint"])
def test_the_other_tasks_too(bundles, backend, task):
    pipe = opened(bundles("sd1", backend.name), backend, task=task)
    picture = torch.linspace(0, 1, 3 * 64 * 64).reshape(1, 3, 64, 64)
    given = {"image": picture, "strength": 1.0, "num_inference_steps": 2}
    if task == "inpaint":
        given["mask_image"] = (picture[:, :1] > 0.5).float()
    alone = [image(pipe, number, **given) for number in range(4)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda number: image(pipe, number, **given), range(4)))
    assert all(np.array_equal(*pair) for pair in zip(found, alone, strict=True))


@one_backend
def test_accelerated_pipelines_too(bundles, backend, models):
    user = eager_pipeline.eager(models["sd1"])
    sdtrt.accelerate(user, bundles("sd1", backend.name), options={"threads": 1})
    alone = image(user, 3)
    inside = []

    def between(mine, step, timestep, tensors):
        inside.append(image(user, 3))
        return tensors

    image(user, 2, callback_on_step_end=between)
    assert np.array_equal(inside[0], alone)


@every_backend
def test_a_pipeline_that_is_dropped_frees_its_engines_at_once(bundles, backend):
    """Gigabytes of a GPU must not wait for a garbage collection, which may never look at what is old."""
    pipe = opened(bundles("sd1", backend.name), backend)
    image(pipe, 0)
    kept = [weakref.ref(e) for e in engine_loading.engines_of(pipe).values()]
    gc.collect()
    gc.disable()
    try:
        del pipe
        assert [ref() for ref in kept if ref() is not None] == []
    finally:
        gc.enable()
