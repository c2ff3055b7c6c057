"""What the kernels share to write results: quantization to FP8, and images in channels_last."""

# mypy: ignore-errors
# ruff: noqa: N803, ANN001, ANN201

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def load_quant_scale(quant_scale, ROUND: tl.constexpr):
    """The factor of `store`, to be loaded first in a kernel: the compiler moves no load ahead of a reduction."""
    return tl.load(quant_scale) if ROUND else 1.0


@triton.jit
def store(y, where, values, quant_scale, known, ROUND: tl.constexpr):
    """Write `values`, in float32, to `y + where`: in the type of `y`, or times `quant_scale` as the bits of FP8."""
    if ROUND:
        values = tl.clamp(values * quant_scale, -448.0, 448.0).to(tl.float8e4nv)
        tl.store(y + where, values.to(tl.uint8, bitcast=True), mask=known)
    else:
        tl.store(y + where, values.to(y.dtype.element_ty), mask=known)


def new_image(images: int, channels: int, height: int, width: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """An empty (N, C, H, W), channels_last; with explicit strides, or Inductor fills it before the kernel does."""
    strides = (height * width * channels, 1, width * channels, channels)
    return torch.empty_strided((images, channels, height, width), strides, dtype=dtype, device=device)
