"""GroupNorm, an added vector before it and SiLU after it, for channels_last tensors, in Triton.

Inductor reads a group's channels with gaps between pixels; here a program reads whole pixels, all channels at once.
There are three launches: sums per channel over a part of the pixels, from them one factor and one offset per channel,
and the result in one more pass. That is two reads and one write of the tensor, the least there is.
"""

# mypy: ignore-errors
# ruff: noqa: N803, ANN001, ANN202

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.library import triton_op, wrap_triton

_TILE = 8192  # elements of a program's tile
_LANES = 128  # channels that one program sums
# Programs that fill a large GPU: four on each of 132 multiprocessors.
_PROGRAMS = 528


@triton.jit
def _sums(
    x, add, sums, pixels, parts, STEPS: tl.constexpr, C: tl.constexpr, BC: tl.constexpr, BP: tl.constexpr,
    ADD: tl.constexpr,
):  # fmt: skip
    """Sum and sum of squares of some channels over one part of one image's pixels."""
    image, part = tl.program_id(0), tl.program_id(1)
    channels = tl.program_id(2) * BC + tl.arange(0, BC)
    inside = channels < C
    offset = tl.zeros([BC], tl.float32)
    if ADD:
        offset = tl.load(add + image * C + channels, mask=inside, other=0.0).to(tl.float32)
    # Whole tiles are summed and reduced once, at the end: a reduction in every step would wait for all threads.
    total = tl.zeros([BP, BC], tl.float32)
    squares = tl.zeros([BP, BC], tl.float32)
    base = x + image.to(tl.int64) * pixels * C
    for step in range(STEPS):
        rows = (part * STEPS + step) * BP + tl.arange(0, BP)
        known = (rows < pixels)[:, None] & inside[None, :]
        values = tl.load(base + rows[:, None] * C + channels[None, :], mask=known, other=0.0).to(tl.float32)
        values = tl.where(known, values + offset[None, :], 0.0)
        total += values
        squares += values * values
    where = sums + ((image * parts + part) * 2) * C + channels
    tl.store(where, tl.sum(total, 0), mask=inside)
    tl.store(where + C, tl.sum(squares, 0), mask=inside)


@triton.jit
def _factors(
    sums, add, weight, bias, factors, pixels, eps, parts: tl.constexpr, C: tl.constexpr, G: tl.constexpr,
    BG: tl.constexpr, ADD: tl.constexpr,
):  # fmt: skip
    """Y = x * factor + offset: mean and variance of a group, in one program per image and group."""
    image, group = tl.program_id(0), tl.program_id(1)
    size: tl.constexpr = C // G
    lanes = tl.arange(0, BG)
    inside = lanes < size
    channels = group * size + lanes
    rows = tl.arange(0, parts)
    where = sums + ((image * parts + rows) * 2 * C)[:, None] + channels[None, :]
    total = tl.sum(tl.sum(tl.load(where, mask=inside[None, :], other=0.0), 1), 0)
    squares = tl.sum(tl.sum(tl.load(where + C, mask=inside[None, :], other=0.0), 1), 0)
    count = pixels * size
    mean = total / count
    variance = squares / count - mean * mean
    scale = tl.rsqrt(tl.maximum(variance, 0.0) + eps)
    gamma = tl.load(weight + channels, mask=inside, other=0.0).to(tl.float32)
    beta = tl.load(bias + channels, mask=inside, other=0.0).to(tl.float32)
    shift = -mean
    if ADD:
        shift = tl.load(add + image * C + channels, mask=inside, other=0.0).to(tl.float32) - mean
    tl.store(factors + image * 2 * C + channels, gamma * scale, mask=inside)
    tl.store(factors + image * 2 * C + C + channels, beta + shift * gamma * scale, mask=inside)


@triton.jit
def _apply(
    x, factors, round_by, y, pixels, C: tl.constexpr, BC: tl.constexpr, BP: tl.constexpr, SILU: tl.constexpr,
    ROUND: tl.constexpr,
):  # fmt: skip
    image, tile = tl.program_id(0), tl.program_id(1)
    channels = tl.arange(0, BC)
    inside = channels < C
    factor = tl.load(factors + image * 2 * C + channels, mask=inside, other=0.0)
    offset = tl.load(factors + image * 2 * C + C + channels, mask=inside, other=0.0)
    rows = tile * BP + tl.arange(0, BP)
    known = (rows < pixels)[:, None] & inside[None, :]
    where = image.to(tl.int64) * pixels * C + rows[:, None] * C + channels[None, :]
    values = tl.load(x + where, mask=known, other=0.0).to(tl.float32)
    values = values * factor[None, :] + offset[None, :]
    if SILU:
        values = values * tl.sigmoid(values)
    if ROUND:
        values = tl.clamp(values * tl.load(round_by), -448.0, 448.0).to(tl.float8e4nv)
        tl.store(y + where, values.to(tl.uint8, bitcast=True), mask=known)
    else:
        tl.store(y + where, values.to(y.dtype.element_ty), mask=known)


@triton_op("sdtrt::group_norm", mutates_args={})
def group_norm(
    x: Tensor,
    add: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    groups: int,
    eps: float,
    silu: bool,
    round_by: Tensor | None = None,
) -> Tensor:
    """GroupNorm of `x + add` over `groups`, then SiLU if asked, then rounding to FP8 if asked.

    Args:
        x: (N, C, H, W), with the strides of channels_last.
        add: (N, C) or None.
        weight: (C,).
        bias: (C,).
        groups: how many groups; C is a multiple of it.
        eps: added to the variance.
        silu: whether SiLU follows.
        round_by: factor before rounding to float8_e4m3fn, or None.

    Returns:
        (N, C, H, W), channels_last, of the type of `x`, or as uint8 the bits of FP8.
    """
    images, channels, height, width = x.shape
    pixels = height * width
    narrow = min(_LANES, triton.next_power_of_2(channels))
    wide = triton.next_power_of_2(channels)
    blocks, deep, tall = triton.cdiv(channels, narrow), _TILE // narrow, max(1, _TILE // wide)
    parts = triton.next_power_of_2(max(1, min(triton.cdiv(pixels, deep), _PROGRAMS // (images * blocks))))
    steps = triton.cdiv(triton.cdiv(pixels, parts), deep)
    sums = torch.empty((images, parts, 2, channels), dtype=torch.float32, device=x.device)
    factors = torch.empty((images, 2, channels), dtype=torch.float32, device=x.device)
    kind = x.dtype if round_by is None else torch.uint8
    # With its strides said, for otherwise Inductor fills the new tensor before the kernel does.
    strides = (pixels * channels, 1, width * channels, channels)
    y = torch.empty_strided(x.shape, strides, dtype=kind, device=x.device)
    # What a kernel does not read is any tensor: one that is there already, or Inductor would write it out for that.
    added = weight if add is None else add.contiguous()
    wrap_triton(_sums)[(images, parts, blocks)](
        x, added, sums, pixels, parts, STEPS=steps, C=channels, BC=narrow, BP=deep, ADD=add is not None, num_warps=8
    )
    wrap_triton(_factors)[(images, groups)](
        sums, added, weight, bias, factors, pixels, eps, parts=parts, C=channels, G=groups,
        BG=triton.next_power_of_2(channels // groups), ADD=add is not None, num_warps=4,
    )  # fmt: skip
    wrap_triton(_apply)[(images, triton.cdiv(pixels, tall))](
        x, factors, weight if round_by is None else round_by, y, pixels, C=channels, BC=wide, BP=tall, SILU=silu,
        ROUND=round_by is not None, num_warps=8,
    )  # fmt: skip
    return y
