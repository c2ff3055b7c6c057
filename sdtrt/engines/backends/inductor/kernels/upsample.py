"""An image of twice the height and width, each pixel four times, and the rounding to FP8 behind it, in Triton.

Inductor reads pixels of channels_last images with gaps, and wrote this tensor up to three times: enlarged, rounded, and
with a border for the convolution behind it. This is one pass.
"""

# mypy: ignore-errors
# ruff: noqa: N803, ANN001, ANN202

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.library import triton_op, wrap_triton

from sdtrt.engines.backends.inductor.kernels.output import factor_of, new_image, put

_LANES, _DEEP = 64, 64  # channels and pixels of a tile


@triton.jit
def _upsample(
    x, factor, y, height, width, C: tl.constexpr, BC: tl.constexpr, BP: tl.constexpr, ROUND: tl.constexpr,
    BORDER: tl.constexpr,
):  # fmt: skip
    """Some channels of some pixels of the result."""
    by = factor_of(factor, ROUND)
    image = tl.program_id(1)
    channels = tl.program_id(2) * BC + tl.arange(0, BC)
    inside = channels < C
    at = tl.program_id(0) * BP + tl.arange(0, BP)
    wide, tall = 2 * width + BORDER, 2 * height + BORDER
    row, column = at // wide, at % wide
    real = (row < 2 * height) & (column < 2 * width)
    known = (at < tall * wide)[:, None] & inside[None, :]
    source = x + image.to(tl.int64) * height * width * C + (row // 2 * width + column // 2)[:, None] * C
    values = tl.load(source + channels[None, :], mask=known & real[:, None], other=0.0)
    where = image.to(tl.int64) * tall * wide * C + at[:, None] * C + channels[None, :]
    put(y, where, values.to(tl.float32), by, known, ROUND)


@triton_op("sdtrt::upsample", mutates_args={})
def upsample(x: Tensor, factor: Tensor | None = None, border: bool = False) -> Tensor:
    """Nearest neighbors at twice the size.

    Args:
        x: (N, C, H, W), with the strides of channels_last.
        factor: what the result is multiplied with before it is rounded to float8_e4m3fn, or None.
        border: whether a row and a column of zeros follow, as `conv3x3` wants it.

    Returns:
        (N, C, 2 * H, 2 * W), or one more of both, channels_last, of the type of `x`, or as uint8 the bits of FP8.
    """
    images, channels, height, width = x.shape
    tall, wide = 2 * height + border, 2 * width + border
    y = new_image(images, channels, tall, wide, x.dtype if factor is None else torch.uint8, x.device)
    wrap_triton(_upsample)[(triton.cdiv(tall * wide, _DEEP), images, triton.cdiv(channels, _LANES))](
        x, x if factor is None else factor, y, height, width, C=channels, BC=_LANES, BP=_DEEP, ROUND=factor is not None,
        BORDER=int(border), num_warps=4,
    )  # fmt: skip
    return y
