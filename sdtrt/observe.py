"""The largest input of every layer with a weight, watched while images are made: what an FP8 engine must know."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn

from sdtrt import parity
from sdtrt.config import Calibration
from sdtrt.errors import BuildError

_INNER = "inner."


@contextmanager
def watching(module: nn.Module) -> Iterator[dict[str, float]]:
    """Meanwhile the dict has, by layer name, the largest magnitude that a linear or convolutional layer was given."""
    import torch

    largest: dict[str, torch.Tensor] = {}
    ranges: dict[str, float] = {}

    def hook(name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def see(_: nn.Module, inputs: tuple[Any, ...]) -> None:
            seen = inputs[0].detach().abs().amax().float()
            largest[name] = torch.maximum(largest[name], seen) if name in largest else seen

        return see

    layers = {n: m for n, m in module.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)}
    handles = [m.register_forward_pre_hook(hook(n.removeprefix(_INNER))) for n, m in layers.items()]
    try:
        yield ranges
    finally:
        for handle in handles:
            handle.remove()
        ranges |= {name: float(value) for name, value in largest.items()}


def ranges_of(
    module: Any,
    calibration: Calibration,
    folder: Path,
    sizes: Mapping[str, int],
    report: Callable[[str, float], None] = lambda label, share: None,
) -> dict[str, float]:
    """Make images with the checkpoint in `folder` and watch the U-Net in `module.inner`.

    Layers that the calibration keeps are left out. Raises BuildError when a range is not a positive number.
    """
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    pipe = parity.eager(folder, unet=module.inner.float())
    pipe.to(device)
    with watching(module) as ranges:
        for number in range(calibration.images):
            report(f"calibrating, image {number + 1} of {calibration.images}", number / calibration.images)
            pipe(
                calibration.prompts[number % len(calibration.prompts)],
                height=sizes["H"],
                width=sizes["W"],
                num_inference_steps=calibration.steps,
                generator=torch.Generator().manual_seed(number),
                output_type="latent",
            )
    found = {n: v for n, v in ranges.items() if not any(word in n for word in calibration.keep)}
    for name, value in found.items():
        if not 0 < value < float("inf"):
            raise BuildError(
                f"the range of {name} is not a number",
                slug="calibration-range",
                received=value,
                expected="a positive finite number",
                hint="calibrate on other prompts, or name the layer under calibration: keep",
            )
    return found
