"""Ranges for a backend that rounds to FP8 by itself: the largest input of every layer, watched while images are made.

Layers that hurt most can stay in half precision: how far each one alone puts the U-Net's output off is measured at
some steps of one more image (`layer_sensitivity`), and the worst are left out until all others together put it off by
no more than the calibration's `max_error`.
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdtrt import engines, lora
from sdtrt.bundle.manifest import Quantization
from sdtrt.config import BuildConfig
from sdtrt.errors import ConfigError
from sdtrt.quantization import calibration_images, layer_sensitivity
from sdtrt.system import env

if TYPE_CHECKING:
    from torch import Tensor, nn

SCHEME = "fp8"


def check(config: BuildConfig, gpu: tuple[str, str] | None) -> None:
    """BackendUnavailable on a GPU without fp8, ConfigError for a calibration that only ModelOpt knows."""
    calibration_images.check_fp8(gpu)
    if config.calibration.algorithm != "max":
        raise ConfigError(
            f"{config.backend} quantizes without smoothquant",
            slug="config-calibration",
            received=f"algorithm: {config.calibration.algorithm}",
            expected="algorithm: max",
        )


def key(config: BuildConfig, loras: Sequence[lora.BakedLora] = ()) -> str:
    """What a quantized engine depends on, for its key."""
    return f"sdtrt, {calibration_images.key(config, loras)}"


def quantize(
    module: nn.Module,
    config: BuildConfig,
    folder: Path,
    sizes: Mapping[str, int],
    loras: Sequence[lora.BakedLora] = (),
    report: Callable[[str, float], None] = lambda label, share: None,
) -> Quantization:
    """Ranges of the layers of the U-Net in `module.inner`, which stays as it is; its record is for the manifest."""
    inner: Any = module.inner
    found, errors = ranges_of(inner, config, folder, sizes, loras, report)
    kept = worst(errors, config.calibration.max_error)
    layers = {name: amax for name, amax in found.items() if name not in kept}
    return Quantization(
        scheme=SCHEME,
        by=f"sdtrt {env.version('sdtrt')}",
        calibration=config.calibration.model_dump(mode="json"),
        layers=layers,
        digest=hashlib.sha256(json.dumps(layers, sort_keys=True).encode()).hexdigest(),
        errors=errors,
        kept=kept,
    )


def ranges_of(
    unet: nn.Module,
    config: BuildConfig,
    folder: Path,
    sizes: Mapping[str, int],
    loras: Sequence[lora.BakedLora] = (),
    report: Callable[[str, float], None] = lambda label, share: None,
) -> tuple[dict[str, float], dict[str, float]]:
    """(largest input magnitude, relative error of the U-Net's output when the layer alone is rounded), by layer.

    They come from images of a copy of `unet` in float32. Layers that the calibration keeps are left out, and so are
    those that the backend does not round; errors are measured only where the calibration limits them. Raises BuildError
    when a range is not a positive number.
    """
    calibration, backend = config.calibration, engines.load(config.backend)
    pipe = calibration_images.pipeline(copy.deepcopy(unet).float(), folder, loras)
    with watching(pipe.unet) as ranges:
        calibration_images.make_images(pipe, calibration, sizes, report)
    layers = dict(pipe.unet.named_modules())
    found = {
        name: value
        for name, value in ranges.items()
        if not any(word in name for word in calibration.exclude)
        and backend.quantizes_layer(layers[name], config.options, config.passes)
    }
    for name, value in found.items():
        calibration_images.check_range(name, value)
    if calibration.max_error is None:
        return found, {}
    once = calibration.model_copy(update={"images": 1})
    with layer_sensitivity.recording(pipe.unet) as calls:
        calibration_images.make_images(
            pipe, once, sizes, lambda label, share: report("measuring errors of layers", 1.0)
        )
    pipe.unet.requires_grad_(False).enable_gradient_checkpointing()  # a backward pass in little memory
    return found, layer_sensitivity.measure(pipe.unet, found, layer_sensitivity.spread(calls))


def worst(errors: Mapping[str, float], limit: float | None) -> tuple[str, ...]:
    """The layers to keep, the worst first: as few as leave at most an error of `limit`."""
    kept: list[str] = []
    rest = sorted(errors, key=lambda name: (-errors[name], name))
    while limit is not None and rest and math.hypot(*(errors[name] for name in rest)) > limit:
        kept.append(rest.pop(0))
    return tuple(kept)


@contextmanager
def watching(module: nn.Module) -> Iterator[dict[str, float]]:
    """Afterwards the dict has, by layer, the largest magnitude that a linear or convolutional layer was given."""
    import torch
    from torch import nn

    largest: dict[str, Tensor] = {}
    ranges: dict[str, float] = {}

    def hook(layer: nn.Module, inputs: tuple[Tensor, ...], name: str) -> None:
        seen = inputs[0].detach().abs().amax().float()
        largest[name] = torch.maximum(largest[name], seen) if name in largest else seen

    layers = {n.removeprefix("inner."): m for n, m in module.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)}
    handles = [layer.register_forward_pre_hook(partial(hook, name=name)) for name, layer in layers.items()]
    try:
        yield ranges
    finally:
        for handle in handles:
            handle.remove()
    ranges |= {name: float(value) for name, value in largest.items()}
