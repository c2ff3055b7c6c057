"""How kernels of ours write: numbers as they are or rounded to FP8, images channels_last."""

# mypy: ignore-errors
# ruff: noqa: N803, ANN001, ANN201

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def factor_of(factor, ROUND: tl.constexpr):
    """What `put` multiplies with, to be read at a kernel's beginning: no compiler moves it ahead of a reduction."""
    return tl.load(factor) if ROUND else 1.0


@triton.jit
def put(y, where, values, factor, known, ROUND: tl.constexpr):
    """Write `values`, in float32, to `y + where`: in the type of `y`, or times `factor` as the bits of FP8."""
    if ROUND:
        values = tl.clamp(values * factor, -448.0, 448.0).to(tl.float8e4nv)
        tl.store(y + where, values.to(tl.uint8, bitcast=True), mask=known)
    else:
        tl.store(y + where, values.to(y.dtype.element_ty), mask=known)


def new_image(images: int, channels: int, height: int, width: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """An empty (N, C, H, W), channels_last; with its strides said, or Inductor fills it before a kernel does."""
    strides = (height * width * channels, 1, width * channels, channels)
    return torch.empty_strided((images, channels, height, width), strides, dtype=dtype, device=device)
