"""The pipelines that a benchmark compares, a bundle's and eager diffusers, and one call of either."""

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from sdtrt import config, lora, models
from sdtrt.bundle.bundle import Bundle
from sdtrt.errors import ModelError
from sdtrt.pipelines import eager_pipeline
from sdtrt.pipelines.engine_loading import engines_of
from sdtrt.pipelines.load import load
from sdtrt.system.json_records import Record

Call = Callable[[int], Any]


class CallSettings(Record):
    """Settings that all calls have in common; `model` is the checkpoint, if it has moved since the build."""

    steps: int
    guidance_scale: float | None = None
    model: str | None = None


class CallShape(Record):
    """Image size in pixels, images per call, and threads that call at the same time."""

    height: int
    width: int
    batch: int
    callers: int


def open_engines(bundle: Bundle) -> tuple[Any, str]:
    """The pipeline with engines, and the device of the engines."""
    pipe = load(bundle)
    pipe.set_progress_bar_config(disable=True)
    return pipe, str(next(iter(engines_of(pipe).values())).device)


def make_call(pipe: Any, settings: CallSettings, shape: CallShape) -> Call:
    """A function of a seed that generates the images of one call.

    A stock diffusers pipeline is not thread-safe: a lock around its calls makes other callers wait, as in a service.
    """
    arguments: dict[str, Any] = {"num_inference_steps": settings.steps, "height": shape.height, "width": shape.width}
    if settings.guidance_scale is not None:
        arguments["guidance_scale"] = settings.guidance_scale
    lock: AbstractContextManager[Any] = nullcontext() if engines_of(pipe) else threading.Lock()

    def call(seed: int) -> Any:
        noise = torch.Generator().manual_seed(seed)
        with lock:
            return pipe([config.PROMPTS[0]] * shape.batch, generator=noise, **arguments).images

    return call


def open_eager(bundle: Bundle, model: str | None, device: str) -> Any:
    """The checkpoint's diffusers pipeline on `device`, with the LoRAs of the build.

    float16 on a GPU unless the bundle is float32; float32 on a CPU, which has no fast float16.
    """
    manifest = bundle.manifest
    try:
        folder = bundle.checkpoint(model)
    except ModelError as exc:
        raise ModelError(
            f"eager diffusers needs the checkpoint: {exc.message}",
            slug=exc.slug,
            received=exc.received,
            expected=exc.expected,
            hint="name the checkpoint with --model, or measure only the engines with --no-eager",
        ) from exc
    specs = models.load(manifest.family).components(folder, "fp32")
    loras = lora.baked(manifest.build_config.lora, specs, folder)
    pipe = eager_pipeline.eager(folder, loras)
    half = device.startswith("cuda") and manifest.precision != "fp32"
    return pipe.to(device, torch.float16 if half else torch.float32)
