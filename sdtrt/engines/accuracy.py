"""The error of an engine against eager PyTorch, and its limits."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NamedTuple

from sdtrt.shapes.sample_inputs import sample_inputs

if TYPE_CHECKING:
    from torch import Tensor

    from sdtrt.engines import Engine

Module = Callable[..., "tuple[Tensor, ...]"]


class Limits(NamedTuple):
    """Largest relative error of a component; smallest PSNR, in dB, and smallest SSIM of an image."""

    error: float
    psnr_db: float
    ssim: float


# By precision of the graph. fp32 engines differ from eager in the order of sums only; at 40 dB an eye sees no
# difference. Rounding in hundreds of layers is chaotic, and the noise of a comparison lies outside the ranges of real
# prompts: the error of a quantized engine is that of the method, and only a gross fault is caught.
LIMITS = {
    "fp32": Limits(1e-3, 40.0, 0.95),
    "fp16": Limits(5e-2, 25.0, 0.75),
    "fp8": Limits(2e-1, 14.0, 0.4),
    "int8": Limits(2e-1, 14.0, 0.4),
}


def component_error(engine: Engine, module: Module, sizes: Mapping[str, int], seed: int = 0) -> float:
    """Worst ‖engine - eager‖ / ‖eager‖ over the outputs, for random inputs.

    Args:
        engine: the engine.
        module: the checkpoint's module, in float32.
        sizes: of the symbols, such as {"B": 1, "H": 512, "W": 512, "T": 77}.
        seed: of the inputs.

    Returns:
        The relative error; infinite when the engine's result is not finite.
    """
    inputs = sample_inputs(engine.spec, sizes, seed)
    return worst_error(run(engine, inputs), expected(module, inputs))


def run(engine: Engine, inputs: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
    """The engine's outputs."""
    return tuple(engine(**{n: t.to(engine.device) for n, t in inputs.items()}).values())


def expected(module: Module, inputs: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
    """The module's outputs, from the same inputs in float32."""
    import torch

    with torch.inference_mode():
        return module(**{n: t.float() if t.is_floating_point() else t for n, t in inputs.items()})


def worst_error(outputs: tuple[Tensor, ...], expected: tuple[Tensor, ...]) -> float:
    """Worst relative error of the outputs; infinite when one is not finite."""
    worst = 0.0
    for output, reference in zip(outputs, expected, strict=True):
        reference = reference.cpu().double()
        difference = output.cpu().double() - reference
        error = float(difference.norm() / reference.norm().clamp(min=1e-12))
        worst = max(worst, error if math.isfinite(error) else math.inf)
    return worst
