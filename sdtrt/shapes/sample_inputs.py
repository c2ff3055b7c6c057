"""Random inputs of a component: for tracing, comparing and profiling."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from sdtrt.shapes.spec import ComponentSpec

if TYPE_CHECKING:
    from torch import Tensor


def sample_inputs(spec: ComponentSpec, sizes: Mapping[str, int], seed: int = 0) -> dict[str, Tensor]:
    """Inputs of a component at `sizes`, from `seed`: normal noise, timesteps from 999 to 1, and token ids."""
    import torch

    random = torch.Generator().manual_seed(seed)
    inputs = {}
    for t in spec.inputs:
        shape, dtype = t.resolve(sizes), getattr(torch, t.dtype)
        if t.dtype == "int64":
            inputs[t.name] = torch.randint(0, 99, shape, generator=random)
        elif t.name == "timestep":
            inputs[t.name] = torch.linspace(999, 1, shape[0], dtype=dtype)
        else:
            inputs[t.name] = torch.randn(shape, generator=random).to(dtype)
    return inputs
