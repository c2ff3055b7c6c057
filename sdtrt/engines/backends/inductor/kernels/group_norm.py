"""GroupNorm, an added vector before it and SiLU after it, for channels_last tensors, in Triton.

Inductor reads a group's channels with gaps between pixels. Where there are many pixels, a program here reads some
channels of all groups they belong to, in three launches: sums per channel over a part of the pixels, from them one
factor and one offset per channel, and the result in one more pass. Few pixels stay in the cache: one program then does
all of a group, in one launch.
"""

# mypy: ignore-errors
# ruff: noqa: N803, ANN001, ANN202

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.library import triton_op, wrap_triton

from sdtrt.engines.backends.inductor.kernels.output import load_quant_scale, new_image, store

# Tiles, programs and warps are the fastest of 54 combinations at ten shapes of SD and SDXL on an H200.
_LANES, _DEEP = 64, 32  # channels and pixels of a tile that is summed
_PROGRAMS = 528  # that sum: four on each of 132 multiprocessors
_TILE = 4096  # elements of a tile that is written
# Pixels of an image, and of all images, up to which one program does a group; the elements that it takes at once where
# those are all of a group, and of a tile where not. Numbers and warps are the fastest of 16 pairs at 13 shapes.
_FEW_PIXELS, _FEW_IN_ALL, _WHOLE_GROUP, _GROUP_TILE = 1024, 4096, 32768, 16384


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
    sums, add, weight, bias, factors, pixels, EPS: tl.constexpr, parts: tl.constexpr, C: tl.constexpr, G: tl.constexpr,
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
    scale = tl.rsqrt(tl.maximum(variance, 0.0) + EPS)
    gamma = tl.load(weight + channels, mask=inside, other=0.0).to(tl.float32)
    beta = tl.load(bias + channels, mask=inside, other=0.0).to(tl.float32)
    shift = -mean
    if ADD:
        shift = tl.load(add + image * C + channels, mask=inside, other=0.0).to(tl.float32) - mean
    tl.store(factors + image * 2 * C + channels, gamma * scale, mask=inside)
    tl.store(factors + image * 2 * C + C + channels, beta + shift * gamma * scale, mask=inside)


@triton.jit
def _store(y, where, values, by, known, SILU: tl.constexpr, ROUND: tl.constexpr):
    """SiLU, quantization and the store."""
    if SILU:
        values = values * tl.sigmoid(values)
    store(y, where, values, by, known, ROUND)


@triton.jit
def _apply(
    x, factors, quant_scale, y, height, width, C: tl.constexpr, BC: tl.constexpr, BP: tl.constexpr, SILU: tl.constexpr,
    ROUND: tl.constexpr, BORDER: tl.constexpr,
):  # fmt: skip
    """Some channels of some pixels; with a border, which is zero, the pixels are those of the result."""
    by = load_quant_scale(quant_scale, ROUND)
    image = tl.program_id(1)
    channels = tl.program_id(2) * BC + tl.arange(0, BC)
    inside = channels < C
    factor = tl.load(factors + image * 2 * C + channels, mask=inside, other=0.0)
    offset = tl.load(factors + image * 2 * C + C + channels, mask=inside, other=0.0)
    at = tl.program_id(0) * BP + tl.arange(0, BP)
    wide, tall = width + BORDER, height + BORDER
    row, column = at // wide, at % wide
    real = (row < height) & (column < width)
    known = (at < tall * wide)[:, None] & inside[None, :]
    source = x + image.to(tl.int64) * height * width * C + (row * width + column)[:, None] * C + channels[None, :]
    values = tl.load(source, mask=known & real[:, None], other=0.0).to(tl.float32)
    values = tl.where(real[:, None], values * factor[None, :] + offset[None, :], 0.0)
    where = image.to(tl.int64) * tall * wide * C + at[:, None] * C + channels[None, :]
    _store(y, where, values, by, known, SILU, ROUND)


@triton.jit
def _added(a, b, c, d):
    """Two sums at once: threads wait for each other half as often."""
    return a + c, b + d


@triton.jit
def _group(
    x, add, weight, bias, quant_scale, y, height, width, EPS: tl.constexpr, C: tl.constexpr, G: tl.constexpr,
    BG: tl.constexpr, BP: tl.constexpr, BE: tl.constexpr, ADD: tl.constexpr, SILU: tl.constexpr, ROUND: tl.constexpr,
    BORDER: tl.constexpr, WHOLE: tl.constexpr,
):  # fmt: skip
    """All of one group of one image; where that is WHOLE in one tile, of BP pixels, it is read once."""
    image, group = tl.program_id(0), tl.program_id(1)
    size: tl.constexpr = C // G
    elements: tl.constexpr = BP * BG
    lanes = tl.arange(0, BG)
    inside = lanes < size
    channels = group * size + lanes
    # Loaded before the sums: threads wait for each other there, and a load after them would wait again.
    by = load_quant_scale(quant_scale, ROUND)
    gamma = tl.load(weight + channels, mask=inside, other=0.0).to(tl.float32)
    beta = tl.load(bias + channels, mask=inside, other=0.0).to(tl.float32)
    offset = tl.zeros([BG], tl.float32)
    if ADD:
        offset = tl.load(add + image * C + channels, mask=inside, other=0.0).to(tl.float32)
    pixels = height * width
    wide, tall = width + BORDER, height + BORDER
    x += image.to(tl.int64) * pixels * C
    y += image.to(tl.int64) * tall * wide * C
    at = tl.arange(0, BP)
    known = (at < pixels)[:, None] & inside[None, :]
    values = tl.load(x + at[:, None] * C + channels[None, :], mask=known, other=0.0).to(tl.float32)
    values = tl.where(known, values + offset[None, :], 0.0)
    total, squares = values, values * values
    if not WHOLE:
        for start in range(BP, pixels, BP):
            more = (start + at < pixels)[:, None] & inside[None, :]
            part = tl.load(x + (start + at)[:, None] * C + channels[None, :], mask=more, other=0.0).to(tl.float32)
            part = tl.where(more, part + offset[None, :], 0.0)
            total += part
            squares += part * part
    both = (tl.reshape(total, [elements], can_reorder=True), tl.reshape(squares, [elements], can_reorder=True))
    sums = tl.reduce(both, 0, _added)
    count = pixels * size
    mean = sums[0] / count
    factor = gamma * tl.rsqrt(tl.maximum(sums[1] / count - mean * mean, 0.0) + EPS)
    if WHOLE:
        values = values * factor[None, :] + (beta - mean * factor)[None, :]
        where = (at // width * wide + at % width)[:, None] * C + channels[None, :]
        _store(y, where, values, by, known, SILU, ROUND)
        if BORDER:
            edge = tl.arange(0, BE)  # the last row, then the last column
            place = tl.where(edge < wide, height * wide + edge, (edge - wide) * wide + width)
            where = place[:, None] * C + channels[None, :]
            edge_known = (edge < wide + height)[:, None] & inside[None, :]
            store(y, where, tl.zeros([BE, BG], tl.float32), by, edge_known, ROUND)
    else:
        shift = beta + (offset - mean) * factor
        for start in range(0, tall * wide, BP):
            place = start + at
            row, column = place // wide, place % wide
            real = (row < height) & (column < width)
            known = (place < tall * wide)[:, None] & inside[None, :]
            source = x + (row * width + column)[:, None] * C + channels[None, :]
            values = tl.load(source, mask=known & real[:, None], other=0.0).to(tl.float32)
            values = tl.where(real[:, None], values * factor[None, :] + shift[None, :], 0.0)
            _store(y, place[:, None] * C + channels[None, :], values, by, known, SILU, ROUND)


@triton_op("sdtrt::group_norm", mutates_args={})
def group_norm(
    x: Tensor,
    add: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    groups: int,
    eps: float,
    silu: bool,
    quant_scale: Tensor | None = None,
    border: bool = False,
) -> Tensor:
    """GroupNorm of `x + add` over `groups`, then SiLU with `silu`, then quantization to FP8 with `quant_scale`.

    Args:
        x: (N, C, H, W), with the strides of channels_last.
        add: (N, C) or None.
        weight: (C,).
        bias: (C,).
        groups: number of groups; C is a multiple of it.
        eps: added to the variance.
        silu: whether SiLU follows.
        quant_scale: (), float32: factor before rounding to float8_e4m3fn, or None for a result in half precision.
        border: whether to add a row and a column of zeros, which `conv3x3` reads.

    Returns:
        (N, C, H, W), or (N, C, H + 1, W + 1), channels_last, of the type of `x`, or as uint8 the bits of FP8.
    """
    images, channels, height, width = x.shape
    pixels, rim = height * width, int(border)
    tall, wide = height + rim, width + rim
    kind = x.dtype if quant_scale is None else torch.uint8
    y = new_image(images, channels, tall, wide, kind, x.device)
    # What a kernel does not read is any tensor: one that is there already, or Inductor would write it out for that.
    added = weight if add is None else add.contiguous()
    scale = weight if quant_scale is None else quant_scale
    flags = {"SILU": silu, "ROUND": quant_scale is not None, "BORDER": rim}
    if pixels <= _FEW_PIXELS and images * pixels <= _FEW_IN_ALL:
        lanes = triton.next_power_of_2(channels // groups)
        deep = triton.next_power_of_2(pixels)
        whole = lanes * deep <= _WHOLE_GROUP
        deep = deep if whole else max(16, _GROUP_TILE // lanes)
        wrap_triton(_group)[(images, groups)](
            x, added, weight, bias, scale, y, height, width, EPS=eps, C=channels, G=groups, BG=lanes, BP=deep,
            BE=triton.next_power_of_2(height + wide), ADD=add is not None, WHOLE=whole, **flags,
            num_warps=8 if whole and lanes * deep <= _GROUP_TILE else 16,
        )  # fmt: skip
        return y
    blocks = triton.cdiv(channels, _LANES)
    parts = triton.next_power_of_2(max(1, min(triton.cdiv(pixels, _DEEP), _PROGRAMS // (images * blocks))))
    steps = triton.cdiv(triton.cdiv(pixels, parts), _DEEP)
    sums = torch.empty((images, parts, 2, channels), dtype=torch.float32, device=x.device)
    factors = torch.empty((images, 2, channels), dtype=torch.float32, device=x.device)
    wrap_triton(_sums)[(images, parts, blocks)](
        x, added, sums, pixels, parts, STEPS=steps, C=channels, BC=_LANES, BP=_DEEP, ADD=add is not None,
        num_warps=8 if images > 4 else 4,
    )  # fmt: skip
    wrap_triton(_factors)[(images, groups)](
        sums, added, weight, bias, factors, pixels, EPS=eps, parts=parts, C=channels, G=groups,
        BG=triton.next_power_of_2(channels // groups), ADD=add is not None, num_warps=4,
    )  # fmt: skip
    deep = _TILE // _LANES
    wrap_triton(_apply)[(triton.cdiv(tall * wide, deep), images, blocks)](
        x, factors, scale, y, height, width, C=channels, BC=_LANES, BP=deep, **flags, num_warps=4
    )
    return y
