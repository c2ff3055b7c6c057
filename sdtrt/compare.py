"""How far an engine is from eager PyTorch, and how far it may be."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from sdtrt import export

if TYPE_CHECKING:
    from torch import Tensor

    from sdtrt.engines import Engine

# Largest relative error of a component and smallest PSNR of an image, in dB, by precision of the graph. fp32 engines
# differ from eager in the order of sums only; 40 dB is beyond what an eye can tell.
# Rounding in hundreds of layers is chaotic, and the noise of a comparison lies outside the ranges of real prompts: the
# error of a quantised engine is that of the method, and only a gross fault is caught.
LIMITS = {"fp32": (1e-3, 40.0), "fp16": (5e-2, 25.0), "fp8": (2e-1, 14.0), "int8": (2e-1, 14.0)}


def component_error(engine: Engine, module: Callable[..., tuple[Tensor, ...]], sizes: Mapping[str, int]) -> float:
    """Worst ‖engine - eager‖ / ‖eager‖ over the outputs; infinite when the engine's result is not finite."""
    import torch

    inputs = export.sample_inputs(engine.spec, sizes)
    outputs = engine(**{n: t.to(engine.device) for n, t in inputs.items()})
    with torch.inference_mode():
        expected = module(**{n: t.float() if t.is_floating_point() else t for n, t in inputs.items()})
    return worst_error(tuple(outputs.values()), expected)


def worst_error(outputs: tuple[Tensor, ...], expected: tuple[Tensor, ...]) -> float:
    """Worst relative error of the outputs; infinite when one is not finite."""
    worst = 0.0
    for got, want in zip(outputs, expected, strict=True):
        reference = want.cpu().double()
        difference = got.cpu().double() - reference
        error = float(difference.norm() / reference.norm().clamp(min=1e-12))
        worst = max(worst, error if math.isfinite(error) else math.inf)
    return worst
