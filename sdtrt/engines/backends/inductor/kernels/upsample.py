"""Nearest-neighbor upsampling by two and quantization to FP8, in Triton.

Inductor reads pixels of channels_last images with gaps, and wrote this tensor up to three times: enlarged, quantized,
and with a border for the convolution that reads it. This is one pass.
"""

# mypy: ignore-errors
# ruff: noqa: N803, ANN001, ANN202

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.library import triton_op, wrap_triton

from sdtrt.engines.backends.inductor.kernels.output import load_quant_scale, new_image, store

_LANES, _DEEP = 64, 64  # channels and pixels of a tile


@triton.jit
def _upsample(
    x, quant_scale, y, height, width, C: tl.constexpr, BC: tl.constexpr, BP: tl.constexpr, ROUND: tl.constexpr,
    BORDER: tl.constexpr,
):  # fmt: skip
    """Some channels of some pixels of the result."""
    by = load_quant_scale(quant_scale, ROUND)
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
    store(y, where, values.to(tl.float32), by, known, ROUND)


@triton_op("sdtrt::upsample", mutates_args={})
def upsample(x: Tensor, quant_scale: Tensor | None = None, border: bool = False) -> Tensor:
    """Nearest neighbors at twice the size.

    Args:
        x: (N, C, H, W), with the strides of channels_last.
        quant_scale: (), float32: factor before rounding to float8_e4m3fn, or None for a result in half precision.
        border: whether to add a row and a column of zeros, which `conv3x3` reads.

    Returns:
        (N, C, 2 * H, 2 * W), or one more of both, channels_last, of the type of `x`, or as uint8 the bits of FP8.
    """
    images, channels, height, width = x.shape
    tall, wide = 2 * height + border, 2 * width + border
    y = new_image(images, channels, tall, wide, x.dtype if quant_scale is None else torch.uint8, x.device)
    wrap_triton(_upsample)[(triton.cdiv(tall * wide, _DEEP), images, triton.cdiv(channels, _LANES))](
        x, x if quant_scale is None else quant_scale, y, height, width, C=channels, BC=_LANES, BP=_DEEP,
        ROUND=quant_scale is not None, BORDER=int(border), num_warps=4,
    )  # fmt: skip
    return y
