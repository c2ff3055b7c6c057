"""What every way of quantizing needs: images made with the checkpoint's own pipeline, and a GPU that has the type."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdtrt import lora, models
from sdtrt.config import BuildConfig, Calibration
from sdtrt.errors import BackendUnavailable, BuildError
from sdtrt.pipelines import eager_pipeline, tasks
from sdtrt.system import env

if TYPE_CHECKING:
    from torch import nn

COMPONENTS = ("unet",)


def check_fp8(gpu: tuple[str, str] | None) -> None:
    """BackendUnavailable when the GPU, a name and a compute capability such as "8.9", does not compute in fp8.

    All GPUs that TensorRT runs on multiply int8.
    """
    if gpu is not None and tuple(int(part) for part in gpu[1].split(".")) < env.LEAST_SM_FP8:
        raise BackendUnavailable(
            "this GPU does not compute in fp8",
            slug="fp8-gpu",
            received=f"{gpu[0]}, compute capability {gpu[1]}",
            expected="compute capability {}.{} or higher: Ada, Hopper or newer".format(*env.LEAST_SM_FP8),
            hint="build with --precision int8 or fp16",
        )


def key(config: BuildConfig, loras: Sequence[lora.BakedLora] = ()) -> str:
    """What ranges depend on beside the U-Net itself: settings, and LoRAs of the text encoders that calibrate it."""
    settings = json.dumps(config.calibration.model_dump(mode="json"), sort_keys=True)
    digest = hashlib.sha256(settings.encode()).hexdigest()[:16]
    encoders = [str(entry) for entry in loras if any(part.startswith("text_encoder") for part in entry.parts)]
    return ", ".join([f"calibration {digest}", *encoders])


def pipeline(unet: nn.Module, folder: Path, loras: Sequence[lora.BakedLora] = ()) -> Any:
    """The checkpoint's pipeline around `unet`, on a GPU where there is one.

    Text encoders that one of `loras` changes have it in them, as they will when the engines run.
    """
    import torch

    pipe = eager_pipeline.eager(folder, unet=unet, **_text_encoders(folder, loras))
    pipe.to("cuda" if torch.cuda.is_available() else "cpu")
    return pipe


def make_images(
    pipe: Any, calibration: Calibration, sizes: Mapping[str, int], report: Callable[[str, float], None]
) -> None:
    """As many latents as the calibration asks for, from its prompts in turn and seeds from 0 on."""
    import torch

    for number in range(calibration.images):
        report(f"calibrating, image {number + 1} of {calibration.images}", number / calibration.images)
        pipe(
            calibration.prompts[number % len(calibration.prompts)],
            height=sizes["H"],
            width=sizes["W"],
            num_inference_steps=calibration.steps,
            generator=torch.Generator().manual_seed(number),
            output_type="latent",
            **tasks.sample_call(pipe, sizes),
        )


def check_range(name: str, amax: float) -> None:
    """BuildError when a layer's largest input is not a positive number."""
    if not 0 < amax < float("inf"):
        raise BuildError(
            f"the range of {name} is not a number",
            slug="calibration-range",
            received=amax,
            expected="a positive finite number",
            hint="calibrate on other prompts, or name the layer under calibration: keep",
        )


def _text_encoders(folder: Path, loras: Sequence[lora.BakedLora]) -> dict[str, Any]:
    """Those that a LoRA changes, with it fused in."""
    family = models.family_of(folder)
    specs, found = family.components(folder, "fp32"), {}
    for name in family.text_encoders:
        if name in specs and any(name in entry.parts for entry in loras):
            module: Any = specs[name].load(folder)
            lora.bake(module, specs[name], loras, folder)
            found[name] = module.inner
    return found
