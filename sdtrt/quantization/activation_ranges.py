"""Activation ranges for a backend that quantizes to FP8 by itself: the largest input of every layer in real images.

The most sensitive layers can stay in half precision: `layer_sensitivity` measures the error of the U-Net's output
when one layer alone is quantized, at some steps of one more image, and the worst layers are left out until the error
of all others together is at most the calibration's `max_error`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from sdtrt import engines, lora
from sdtrt.bundle.manifest import Quantization
from sdtrt.config import BuildConfig
from sdtrt.errors import ConfigError
from sdtrt.quantization import calibration_images, layer_sensitivity
from sdtrt.quantization.calibration_images import CalibrationImages
from sdtrt.system import env

if TYPE_CHECKING:
    from torch import Tensor, nn


def check(config: BuildConfig, backend: engines.Backend, gpu: tuple[str, str] | None = None) -> None:
    """Raise BackendUnavailable on a GPU without fp8, ConfigError for a calibration that only ModelOpt has."""
    calibration_images.check_fp8(gpu)
    if config.calibration.algorithm != "max":
        raise ConfigError(
            f"{backend.name} quantizes without smoothquant",
            slug="config-calibration",
            received=f"algorithm: {config.calibration.algorithm}",
            expected="algorithm: max",
        )


def key(config: BuildConfig, loras: Sequence[lora.BakedLora] = ()) -> str:
    """What a quantized engine depends on: the field "quantization" of its key."""
    return f"sdtrt, {calibration_images.key(config, loras)}"


def quantize(module: nn.Module, config: BuildConfig, images: CalibrationImages) -> Quantization:
    """Measure the activation ranges of the U-Net in `module.inner`, which stays as it is.

    Raises BuildError when a range is not a positive number.
    """
    inner: Any = module.inner
    ranges, errors = measure_ranges(inner, config, images)
    kept = worst_layers(errors, images.settings.max_error)
    layers = {name: amax for name, amax in ranges.items() if name not in kept}
    return Quantization(
        scheme="fp8",
        by=f"sdtrt {env.version('sdtrt')}",
        calibration=images.settings.model_dump(mode="json"),
        layers=layers,
        digest=calibration_images.json_digest(layers),
        errors=errors,
        kept=kept,
    )


def measure_ranges(
    unet: nn.Module, config: BuildConfig, images: CalibrationImages
) -> tuple[dict[str, float], dict[str, float]]:
    """(largest input magnitude, relative error of the U-Net's output when the layer alone is quantized), by layer.

    Layers that the calibration excludes and layers that the backend does not quantize are left out. Errors are measured
    only where the calibration limits them. Raises BuildError when a range is not a positive number.
    """
    settings, backend = images.settings, engines.load(config.backend)
    pipe = images.pipeline(unet)
    with record_input_ranges(pipe.unet) as all_ranges:
        images.make(pipe)
    layers, options = dict(pipe.unet.named_modules()), backend.check_options(config.options)
    ranges = {
        name: amax
        for name, amax in all_ranges.items()
        if not any(word in name for word in settings.exclude)
        and backend.quantizes_layer(layers[name], options, config.passes)
    }
    for name, amax in ranges.items():
        calibration_images.check_range(name, amax)
    if settings.max_error is None:
        return ranges, {}
    one_image = replace(
        images,
        settings=settings.model_copy(update={"images": 1}),
        report=lambda label, share: images.report("measuring errors of layers", 1.0),
    )
    with layer_sensitivity.record_calls(pipe.unet) as calls:
        one_image.make(pipe)
    pipe.unet.requires_grad_(False).enable_gradient_checkpointing()  # a backward pass in little memory
    return ranges, layer_sensitivity.measure(pipe.unet, ranges, layer_sensitivity.select_calls(calls))


def worst_layers(errors: Mapping[str, float], limit: float | None) -> tuple[str, ...]:
    """The layers to keep in half precision, the worst first: as few as leave an error of at most `limit`."""
    kept: list[str] = []
    quantized = sorted(errors, key=lambda name: (-errors[name], name))
    while limit is not None and quantized and math.hypot(*(errors[name] for name in quantized)) > limit:
        kept.append(quantized.pop(0))
    return tuple(kept)


@contextmanager
def record_input_ranges(module: nn.Module) -> Iterator[dict[str, float]]:
    """The largest input magnitude of every linear and convolutional layer; the dict is filled when the block ends."""
    import torch
    from torch import nn

    largest: dict[str, Tensor] = {}
    ranges: dict[str, float] = {}

    def hook(layer: nn.Module, inputs: tuple[Tensor, ...], name: str) -> None:
        amax = inputs[0].detach().abs().amax().float()
        largest[name] = torch.maximum(largest[name], amax) if name in largest else amax

    with ExitStack() as hooks:
        for name, layer in module.named_modules():
            if isinstance(layer, nn.Linear | nn.Conv2d):
                record = partial(hook, name=name.removeprefix("inner."))
                hooks.enter_context(layer.register_forward_pre_hook(record))
        yield ranges
    ranges |= {name: float(amax) for name, amax in largest.items()}
