"""What is compared: the bundle's pipeline and the checkpoint's own, on the same device, called in the same way."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from sdtrt import config, lora, models
from sdtrt.bundle.bundle import Bundle
from sdtrt.errors import ModelError
from sdtrt.pipelines import eager_pipeline
from sdtrt.pipelines.engine_loading import engines_of
from sdtrt.pipelines.load import load
from sdtrt.system.json_records import Record

Call = Callable[[int], Any]


class Settings(Record):
    """What a call has beside its size: `model` is where the checkpoint lies, if not where it was built from."""

    steps: int
    guidance_scale: float | None = None
    model: str | None = None


class Shape(Record):
    """What is asked for in one case."""

    height: int
    width: int
    batch: int
    callers: int


def open_engines(bundle: Bundle) -> tuple[Any, str]:
    """The pipeline with engines, and the device that they run on."""
    pipe = load(bundle)
    pipe.set_progress_bar_config(disable=True)
    return pipe, str(next(iter(engines_of(pipe).values())).device)


def call_of(pipe: Any, settings: Settings, shape: Shape) -> Call:
    """A function that makes the images of one call, with the noise of a seed.

    A stock pipeline has one caller at a time: others wait, as they have to in a service.
    """
    import torch

    given: dict[str, Any] = {"num_inference_steps": settings.steps, "height": shape.height, "width": shape.width}
    if settings.guidance_scale is not None:
        given["guidance_scale"] = settings.guidance_scale
    turn: AbstractContextManager[Any] = nullcontext() if engines_of(pipe) else threading.Lock()

    def call(seed: int) -> Any:
        noise = torch.Generator().manual_seed(seed)
        with turn:
            return pipe([config.PROMPTS[0]] * shape.batch, generator=noise, **given).images

    return call


def open_eager(bundle: Bundle, model: str | None, device: str) -> Any:
    """The checkpoint's own pipeline on that device, with the LoRAs of the build.

    In half precision on a GPU, unless the bundle is float32; on a CPU in float32, the only type that it is made for.
    """
    import torch

    manifest = bundle.manifest
    try:
        folder = bundle.checkpoint(model)
    except ModelError as exc:
        raise ModelError(
            f"eager diffusers needs the checkpoint: {exc.message}",
            slug=exc.slug,
            received=exc.received,
            expected=exc.expected,
            hint="say where it lies with --model, or measure the engines alone with --no-eager",
        ) from exc
    specs = models.load(manifest.family).components(folder, "fp32")
    loras = lora.baked(manifest.build_config.lora, specs, folder)
    pipe = eager_pipeline.eager(folder, loras)
    half = device.startswith("cuda") and manifest.precision != "fp32"
    return pipe.to(device, torch.float16 if half else torch.float32)
