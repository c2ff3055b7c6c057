"""Ranges for a backend that rounds to FP8 by itself: the largest input of every layer, watched while images are made.

A layer whose output suffers most can stay in half precision: each is then computed once more with its input and its
weight rounded, in one more image, and the worst are left out until the errors of all others add up to no more than the
calibration's `most_error`.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdtrt import calibrating, env, lora
from sdtrt.config import BuildConfig, Calibration
from sdtrt.errors import ConfigError
from sdtrt.store import Quantisation

if TYPE_CHECKING:
    from torch import Tensor, nn

SCHEME = "fp8"


def check(config: BuildConfig, gpu: tuple[str, str] | None) -> None:
    """BackendUnavailable on a GPU without fp8, ConfigError for a calibration that only ModelOpt knows."""
    calibrating.check_fp8(gpu)
    if config.calibration.algorithm != "max":
        raise ConfigError(
            f"{config.backend} quantises without smoothquant",
            slug="config-calibration",
            received=f"algorithm: {config.calibration.algorithm}",
            expected="algorithm: max",
        )


def key(config: BuildConfig, loras: Sequence[lora.BakedLora] = ()) -> str:
    """What a quantised engine depends on, for its key."""
    return f"sdtrt, {calibrating.key(config, loras)}"


def quantise(
    module: nn.Module,
    config: BuildConfig,
    folder: Path,
    sizes: Mapping[str, int],
    loras: Sequence[lora.BakedLora] = (),
    report: Callable[[str, float], None] = lambda label, share: None,
) -> Quantisation:
    """Ranges of the layers of the U-Net in `module.inner`, which stays as it is; its record is for the manifest."""
    inner: Any = module.inner
    found, errors = ranges_of(inner, config.calibration, folder, sizes, loras, report)
    kept = worst(errors, config.calibration.most_error)
    layers = {name: amax for name, amax in found.items() if name not in kept}
    return Quantisation(
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
    calibration: Calibration,
    folder: Path,
    sizes: Mapping[str, int],
    loras: Sequence[lora.BakedLora] = (),
    report: Callable[[str, float], None] = lambda label, share: None,
) -> tuple[dict[str, float], dict[str, float]]:
    """(largest input magnitude, relative error of the output) by layer, from images of a copy of `unet` in float32.

    Layers that the calibration keeps are left out, and errors are measured only where it limits them. Raises BuildError
    when a range is not a positive number.
    """
    pipe = calibrating.pipeline(copy.deepcopy(unet).float(), folder, loras)
    with watching(pipe.unet) as ranges:
        calibrating.make_images(pipe, calibration, sizes, report)
    found = {n: v for n, v in ranges.items() if not any(word in n for word in calibration.keep)}
    for name, value in found.items():
        calibrating.check_range(name, value)
    if calibration.most_error is None:
        return found, {}
    with rounding(pipe.unet, found) as errors:
        once = calibration.model_copy(update={"images": 1})
        calibrating.make_images(pipe, once, sizes, lambda label, share: report("measuring errors of layers", 1.0))
    return found, errors


def worst(errors: Mapping[str, float], limit: float | None) -> tuple[str, ...]:
    """The layers to keep, the worst first: as few as leave a sum of errors of at most `limit`."""
    kept: list[str] = []
    rest = sorted(errors, key=lambda name: (-errors[name], name))
    while limit is not None and rest and sum(errors[name] for name in rest) > limit:
        kept.append(rest.pop(0))
    return tuple(kept)


@contextmanager
def watching(module: nn.Module) -> Iterator[dict[str, float]]:
    """Afterwards the dict has, by layer, the largest magnitude that a linear or convolutional layer was given."""
    import torch

    largest: dict[str, Tensor] = {}
    ranges: dict[str, float] = {}

    def see(name: str, layer: nn.Module, given: Tensor, made: Tensor) -> None:
        seen = given.detach().abs().amax().float()
        largest[name] = torch.maximum(largest[name], seen) if name in largest else seen

    with _hooked(module, see):
        yield ranges
    ranges |= {name: float(value) for name, value in largest.items()}


@contextmanager
def rounding(module: nn.Module, ranges: Mapping[str, float]) -> Iterator[dict[str, float]]:
    """Afterwards the dict has, by layer, ‖rounded - exact‖ / ‖exact‖ over all outputs that the layer gave."""
    import torch

    from sdtrt.engines._inductor.rounding import LARGEST, round_weight

    wrong: dict[str, Tensor] = {}
    whole: dict[str, Tensor] = {}
    errors: dict[str, float] = {}
    weights: dict[str, Tensor] = {}

    def see(name: str, layer: Any, given: Tensor, made: Tensor) -> None:
        if name not in ranges:
            return
        if name not in weights:
            rounded, scales = round_weight(layer.weight.detach().flatten(1))
            weights[name] = (rounded.float() * scales[:, None]).reshape(layer.weight.shape)
        scale = ranges[name] / LARGEST
        x = (given.float() / scale).clamp(-LARGEST, LARGEST).to(torch.float8_e4m3fn).float() * scale
        got = _computed(layer, x, weights[name])
        for sums, tensor in ((wrong, got - made), (whole, made)):
            sums[name] = sums.get(name, torch.zeros((), device=made.device)) + tensor.detach().double().square().sum()

    with _hooked(module, see):
        yield errors
    errors |= {name: float((wrong[name] / whole[name]).sqrt()) for name in wrong}


def _computed(layer: Any, x: Tensor, weight: Tensor) -> Tensor:
    """What the layer would give with this weight."""
    from torch.nn import functional

    if x.dim() == 4 and weight.dim() == 4:
        return functional.conv2d(x, weight, layer.bias, layer.stride, layer.padding, layer.dilation, layer.groups)
    return functional.linear(x, weight, layer.bias)


@contextmanager
def _hooked(module: nn.Module, see: Callable[[str, nn.Module, Tensor, Tensor], None]) -> Iterator[None]:
    """Meanwhile `see` is told the name, the input and the output of every layer with a weight."""
    from torch import nn

    handles = []
    for name, layer in module.named_modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):

            def hook(seen: nn.Module, inputs: tuple[Any, ...], made: Any, name: str = name) -> None:
                see(name.removeprefix("inner."), seen, inputs[0], made)

            handles.append(layer.register_forward_hook(hook))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
