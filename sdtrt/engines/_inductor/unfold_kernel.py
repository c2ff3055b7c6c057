"""The 3x3 neighbourhood of every pixel as one row, for channels_last tensors of one-byte numbers, in Triton."""

# mypy: ignore-errors
# ruff: noqa: N803, ANN001, ANN202

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.library import triton_op, wrap_triton

_TILE = 16384  # bytes of a program's tile


@triton.jit
def _unfold(x, y, height, width, C: tl.constexpr, BC: tl.constexpr, BP: tl.constexpr):
    """Copy one neighbour of some pixels, some channels; outside of the image there are zeros."""
    tap = tl.program_id(1)
    channels = tl.program_id(2) * BC + tl.arange(0, BC)
    pixels = tl.program_id(0).to(tl.int64) * BP + tl.arange(0, BP)  # of all images
    down, right = tap // 3 - 1, tap % 3 - 1
    row, column = (pixels // width) % height + down, pixels % width + right
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    known = channels < C
    source = x + (pixels + down * width + right)[:, None] * C + channels[None, :]
    values = tl.load(source, mask=inside[:, None] & known[None, :], other=0)
    tl.store(y + pixels[:, None] * (9 * C) + tap * C + channels[None, :], values, mask=known[None, :])


@triton_op("sdtrt::unfold3x3", mutates_args={})
def unfold3x3(x: Tensor) -> Tensor:
    """Neighbourhoods of all pixels, zeros around the image.

    Args:
        x: (N, C, H, W), uint8, with the strides of channels_last; N * H * W is a multiple of 64.

    Returns:
        (N * H * W, 9 * C), uint8: for each pixel the channels of its neighbours, row by row.
    """
    images, channels, height, width = x.shape
    pixels, wide = images * height * width, min(512, triton.next_power_of_2(channels))
    tall = min(64, _TILE // wide)
    y = torch.empty((pixels, 9 * channels), dtype=torch.uint8, device=x.device)
    wrap_triton(_unfold)[(pixels // tall, 9, triton.cdiv(channels, wide))](
        x, y, height, width, C=channels, BC=wide, BP=tall, num_warps=8
    )
    return y
