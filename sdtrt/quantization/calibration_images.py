"""Calibration images, made by the checkpoint's own pipeline; and checks of the GPU and of ranges for both methods."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdtrt import lora, models
from sdtrt.config import BuildConfig, Calibration
from sdtrt.errors import BackendUnavailable, BuildError
from sdtrt.pipelines import eager_pipeline, tasks
from sdtrt.system import env

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class CalibrationImages:
    """The images that calibrate a U-Net.

    Attributes:
        settings: number of images, prompts and denoising steps.
        folder: the checkpoint, in diffusers' layout.
        sizes: sizes of the images by symbol, "H" and "W" in pixels.
        loras: LoRAs that are in the U-Net already; text encoders get them too, as in the engines.
        report: receives a label and the share of the images that is done, 0 to 1.
    """

    settings: Calibration
    folder: Path
    sizes: Mapping[str, int]
    loras: Sequence[lora.BakedLora] = ()
    report: Callable[[str, float], None] = lambda label, share: None

    def pipeline(self, unet: nn.Module) -> Any:
        """The checkpoint's pipeline around a float32 copy of `unet`, on a GPU where there is one."""
        import torch

        copied = copy.deepcopy(unet).float()
        pipe = eager_pipeline.eager(self.folder, unet=copied, **self._text_encoders())
        pipe.to("cuda" if torch.cuda.is_available() else "cpu")
        return pipe

    def make(self, pipe: Any) -> None:
        """Make the latents of all images, from the prompts in turn and seeds from 0 on."""
        import torch

        settings = self.settings
        for number in range(settings.images):
            self.report(f"calibrating, image {number + 1} of {settings.images}", number / settings.images)
            pipe(
                settings.prompts[number % len(settings.prompts)],
                height=self.sizes["H"],
                width=self.sizes["W"],
                num_inference_steps=settings.steps,
                generator=torch.Generator().manual_seed(number),
                output_type="latent",
                **tasks.sample_call(pipe, self.sizes),
            )

    def _text_encoders(self) -> dict[str, Any]:
        """The text encoders that a LoRA changes, with it fused in."""
        family = models.family_of(self.folder)
        specs, encoders = family.components(self.folder, "fp32"), {}
        for name in family.text_encoders:
            if name in specs and any(name in entry.parts for entry in self.loras):
                module: Any = specs[name].load(self.folder)
                lora.bake(module, specs[name], self.loras, self.folder)
                encoders[name] = module.inner
        return encoders


def check_fp8(gpu: tuple[str, str] | None) -> None:
    """Raise BackendUnavailable when the GPU, a name and a compute capability such as "8.9", does not compute in fp8.

    int8 needs no check: all GPUs that TensorRT runs on have it.
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
    """What ranges depend on besides the U-Net: the settings, and LoRAs of the text encoders that calibrate it."""
    digest = json_digest(config.calibration.model_dump(mode="json"))[:16]
    encoders = [str(entry) for entry in loras if any(part.startswith("text_encoder") for part in entry.parts)]
    return ", ".join([f"calibration {digest}", *encoders])


def json_digest(value: Any) -> str:
    """sha256 of a value as JSON."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def check_range(name: str, amax: float) -> None:
    """Raise BuildError when the largest input of a layer is not a positive number."""
    if not 0 < amax < float("inf"):
        raise BuildError(
            f"the range of {name} is not a number",
            slug="calibration-range",
            received=amax,
            expected="a positive finite number",
            hint="calibrate on other prompts, or name the layer under calibration: exclude",
        )
