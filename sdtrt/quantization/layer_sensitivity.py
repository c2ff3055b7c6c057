"""What FP8 costs a component: how far its output is off when one layer alone is rounded, for all layers at once.

How far a layer's own output is off says nothing of that: on the embedded model the two have a rank correlation of 0.2.
Rounding one layer after the other would take a forward pass for each. So the error that a layer makes is carried to
the output by its gradient. For a random direction v, <v, J e> is one number per layer out of one backward pass, and its
mean square over directions is ‖J e‖².
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn

# Directions for each call: with 16 in all, the measured ranks have a correlation of 0.98 with the true ones.
DIRECTIONS = 4
CALLS = 4
Call = tuple[tuple[Any, ...], dict[str, Any]]


@contextmanager
def recording(module: nn.Module) -> Iterator[list[Call]]:
    """Meanwhile the list gets the arguments of every call."""
    calls: list[Call] = []

    def note(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        calls.append(copy.deepcopy((args, kwargs)))

    handle = module.register_forward_pre_hook(note, with_kwargs=True)
    try:
        yield calls
    finally:
        handle.remove()


def spread(calls: Sequence[Call], count: int = CALLS) -> list[Call]:
    """The first, the last and as many between as make `count`."""
    steps = max(1, min(count, len(calls)) - 1)
    return [calls[i] for i in sorted({round(n * (len(calls) - 1) / steps) for n in range(steps + 1)})]


def measure(module: Any, ranges: Mapping[str, float], calls: Sequence[Call]) -> dict[str, float]:
    """Relative error of the module's first output over all calls, by the layer that alone is rounded to FP8.

    `ranges` are the largest input magnitudes of the layers. To first order: errors of several layers add up as those
    of independent noise do, by their squares.
    """
    import torch

    device = next(module.parameters()).device
    factors = {name: torch.zeros((), device=device, requires_grad=True) for name in ranges}
    squares = {name: torch.zeros((), device=device, dtype=torch.float64) for name in ranges}
    whole = torch.zeros((), device=device, dtype=torch.float64)
    random = torch.Generator().manual_seed(0)
    with torch.enable_grad(), _wrong_by(module, ranges, factors):
        for args, kwargs in calls:
            made = module(*args, **kwargs)[0]
            whole += made.detach().double().square().sum()
            for _ in range(DIRECTIONS):
                direction = torch.randn(made.shape, generator=random).to(made)
                carried = torch.autograd.grad(
                    made, list(factors.values()), direction, retain_graph=True, allow_unused=True
                )
                for name, part in zip(factors, carried, strict=True):
                    if part is not None:
                        squares[name] += part.double().square() / DIRECTIONS
    return {name: float((square / whole).sqrt()) for name, square in squares.items()}


@contextmanager
def _wrong_by(module: nn.Module, ranges: Mapping[str, float], factors: Mapping[str, Tensor]) -> Iterator[None]:
    """Meanwhile each layer gives its output plus its factor times the error that rounding it would make."""
    handles = []
    for full, layer in module.named_modules():
        name = full.removeprefix("inner.")
        if name not in ranges:
            continue

        def hook(layer: nn.Module, inputs: tuple[Tensor, ...], made: Tensor, name: str = name) -> Tensor:
            return made + factors[name] * error(layer, inputs[0], made, ranges[name])

        handles.append(layer.register_forward_hook(hook))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def error(layer: Any, given: Tensor, made: Tensor, amax: float) -> Tensor:
    """What rounding a layer's input and weight to FP8 adds to its output `made`.

    The weight of a linear layer gets one scale, of a convolution one per channel. An engine that computes several
    layers as one product gives them one scale together, and a gated layer one per channel.
    """
    import torch
    from torch.nn import functional

    from sdtrt.engines.backends.inductor.fp8_rounding import LARGEST, round_matrix, round_weight

    with torch.no_grad():
        by_channel = layer.weight.dim() == 4
        narrow, unit = (round_weight if by_channel else round_matrix)(layer.weight.flatten(1))
        weight = (narrow.float() * (unit[:, None] if by_channel else unit)).reshape(layer.weight.shape)
        scale = amax / LARGEST
        x = (given.float() / scale).clamp(-LARGEST, LARGEST).to(torch.float8_e4m3fn).float() * scale
        if weight.dim() == 4 and x.dim() == 4:
            how = (layer.stride, layer.padding, layer.dilation, layer.groups)
            return functional.conv2d(x, weight, layer.bias, *how) - made
        return functional.linear(x, weight, layer.bias) - made
