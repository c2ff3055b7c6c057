"""timed(): one call of a pipeline with the time of each engine in it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from sdtrt import engines
from sdtrt.pipelines.engine_loading import engines_of
from sdtrt.plan.image_timing import EngineCalls, ImageRun

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

T = TypeVar("T")


def timed(
    pipe: DiffusionPipeline, call: Callable[[], T], *, steps: int, images: int, height: int, width: int
) -> tuple[T, ImageRun]:
    """Run `call` and return its result with the wall time and the time of each engine, in milliseconds.

    Calls of other threads are not counted. On a GPU each engine call waits for its end, so the whole takes a little
    longer than without timing.

    Args:
        pipe: the pipeline that `call` runs.
        call: makes the images.
        steps: denoising steps of the call.
        images: images that the call makes.
        height: pixels of each image.
        width: pixels of each image.
    """
    loaded = engines_of(pipe)
    with engines.time_calls() as times:
        started = time.perf_counter()
        result = call()
        wall_ms = (time.perf_counter() - started) * 1e3
    ran: Any = times.pipeline or pipe
    return result, ImageRun(
        steps=steps,
        images=images,
        height=height,
        width=width,
        guidance_scale=getattr(ran, "guidance_scale", None),
        scheduler=type(ran.scheduler).__name__,
        device=next((e.backend.device(e.context.options) for e in loaded.values()), None),
        wall_ms=wall_ms,
        engines={
            name: EngineCalls(count=times.by_engine[engine][0], total_ms=times.by_engine[engine][1] * 1e3)
            for name, engine in sorted(loaded.items())
            if engine in times.by_engine
        },
    )
