"""3x3 convolution in FP8 for channels_last tensors, in Triton: nine shifted matmuls whose rows are pixels.

The input has one more column and one more row of zeros per image. In a flat list of pixels every neighbor then lies
at a fixed distance: left of the first column is the column of zeros of the row above, and above the first row is the
row of zeros of the image before. So TMA copies whole tiles, no tensor of nine times the size is written, and the border
needs no case of its own. Pixels of the border are computed too, and not stored.

Few pixels make fewer tiles than there are multiprocessors: then the sum is split (split-K) and a second launch adds the
parts.
"""

# mypy: ignore-errors
# ruff: noqa: N803, ANN001, ANN202

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.library import triton_op, wrap_triton

from sdtrt.engines.backends.inductor.kernels.output import new_image

_GROUP = 8  # tiles of pixels that use the same weights one after another
_LANES = 256  # channels that one program adds up


class Tile(NamedTuple):
    """Pixels and channels of a tile, input channels of a step, how it is computed, and what it takes.

    `step_us` and `end_us` were fitted to 22 convolutions on an H200 (benchmarks/h200_kernels.py): the time of
    one step of `depth` along the sum, and the time before and after the steps.
    """

    pixels: int
    channels: int
    depth: int
    warps: int
    stages: int
    step_us: float
    end_us: float


# Steps of 64 are for 320 and 960 input channels, which fill no whole number of larger ones.
_TALL, _SHORT = Tile(256, 128, 128, 8, 3, 0.66, 6.0), Tile(256, 128, 64, 8, 5, 0.345, 6.0)
_SQUARE = Tile(128, 128, 128, 8, 4, 0.36, 4.5)
# Of a sum that is cut into parts, two at a time on a multiprocessor; for few pixels one.
_PART, _SMALL_PART = Tile(128, 128, 128, 8, 3, 0, 0), Tile(64, 128, 128, 4, 6, 0, 0)
_FEW_PIXELS, _MOST_PARTS = 512, 8


@triton.jit
def _shifted(i, steps: tl.constexpr, wide, BK: tl.constexpr):
    """Distance of the pixel that step `i` reads, and the first of its channels."""
    tap = i // steps
    return (tap // 3 - 1) * wide + tap % 3 - 1, (i % steps) * BK


@triton.jit
def _write(y, residual, where, values, stored, ADD: tl.constexpr):
    if ADD:
        values += tl.load(residual + where, mask=stored, other=0.0).to(tl.float32)
    tl.store(y + where, values.to(y.dtype.element_ty), mask=stored)


@triton.jit
def _conv3x3(
    x, w, scale, scales, bias, residual, y, images, height, width, tiles_m, tiles_n, C: tl.constexpr, K: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, GROUP: tl.constexpr, PROGRAMS: tl.constexpr,
    BIAS: tl.constexpr, ADD: tl.constexpr,
):  # fmt: skip
    wide = width + 1
    count = images * (height + 1) * wide
    x = x.to(tl.pointer_type(tl.float8e4nv), bitcast=True)
    pixels = tl.make_tensor_descriptor(x, [count, C], [C, 1], [BM, BK])
    weights = tl.make_tensor_descriptor(w, [K, 9 * C], [9 * C, 1], [BN, BK])
    by = tl.load(scale)
    steps: tl.constexpr = (C + BK - 1) // BK
    for tile in tl.range(tl.program_id(0), tiles_m * tiles_n, PROGRAMS):
        first = tile // (GROUP * tiles_n) * GROUP
        tall = min(tiles_m - first, GROUP)
        inner = tile % (GROUP * tiles_n)
        m = (first + inner % tall) * BM
        n = (inner // tall) * BN
        columns = n + tl.arange(0, BN)
        known = columns < K
        # Loaded before the matmuls: a load after them would wait for them.
        dequant_scales = tl.load(scales + columns, mask=known, other=0.0) * by
        if BIAS:
            more = tl.load(bias + columns, mask=known, other=0.0)
        total = tl.zeros((BM, BN), tl.float32)
        for i in range(9 * steps):
            shift, channel = _shifted(i, steps, wide, BK)
            a = pixels.load([m + shift, channel])
            b = weights.load([n, i // steps * C + channel])
            total = tl.dot(a, b.T, total)
        total *= dequant_scales[None, :]
        if BIAS:
            total += more.to(tl.float32)[None, :]
        at = m + tl.arange(0, BM)
        row, column = at // wide, at % wide
        image, row = row // (height + 1), row % (height + 1)
        inside = (row < height) & (column < width) & (at < count)
        # Beside the first pixel of an image 32 bits do for all of a tile; with 64 each, registers would not.
        start = m // ((height + 1) * wide) * height * width
        where = (((image * height + row) * width + column - start) * K)[:, None]
        here, there = y + start.to(tl.int64) * K, residual + start.to(tl.int64) * K
        if ADD:  # in halves, for the same reason
            left, right = tl.split(tl.permute(tl.reshape(total, (BM, 2, BN // 2)), (0, 2, 1)))
            columns = n + tl.arange(0, BN // 2)
            _write(here, there, where + columns[None, :], left, inside[:, None] & (columns < K)[None, :], True)
            columns += BN // 2
            _write(here, there, where + columns[None, :], right, inside[:, None] & (columns < K)[None, :], True)
        else:
            _write(here, there, where + columns[None, :], total, inside[:, None] & known[None, :], False)


@triton.jit
def _conv3x3_parts(
    x, w, scale, scales, parts, images, height, width, tiles_m, C: tl.constexpr, K: tl.constexpr, BM: tl.constexpr,
    BN: tl.constexpr, BK: tl.constexpr, PARTS: tl.constexpr,
):  # fmt: skip
    """One part of the sum of one tile, border and all, in half precision: half the memory to write and read again."""
    wide = width + 1
    count = images * (height + 1) * wide
    x = x.to(tl.pointer_type(tl.float8e4nv), bitcast=True)
    pixels = tl.make_tensor_descriptor(x, [count, C], [C, 1], [BM, BK])
    weights = tl.make_tensor_descriptor(w, [K, 9 * C], [9 * C, 1], [BN, BK])
    steps: tl.constexpr = (C + BK - 1) // BK
    each: tl.constexpr = (9 * steps + PARTS - 1) // PARTS
    part = tl.program_id(1)
    m = tl.program_id(0) % tiles_m * BM
    n = tl.program_id(0) // tiles_m * BN
    columns = n + tl.arange(0, BN)
    dequant_scales = tl.load(scales + columns, mask=columns < K, other=0.0) * tl.load(scale)
    total = tl.zeros((BM, BN), tl.float32)
    for i in range(part * each, min(part * each + each, 9 * steps)):
        shift, channel = _shifted(i, steps, wide, BK)
        a = pixels.load([m + shift, channel])
        b = weights.load([n, i // steps * C + channel])
        total = tl.dot(a, b.T, total)
    at = m + tl.arange(0, BM)
    where = (part * count + at).to(tl.int64)[:, None] * K + columns[None, :]
    total = (total * dequant_scales[None, :]).to(parts.dtype.element_ty)
    tl.store(parts + where, total, mask=(at < count)[:, None] & (columns < K)[None, :])


@triton.jit
def _add_parts(
    parts, bias, residual, y, images, height, width, K: tl.constexpr, BN: tl.constexpr, PARTS: tl.constexpr,
    BIAS: tl.constexpr, ADD: tl.constexpr,
):  # fmt: skip
    """Some channels of one pixel that is not border."""
    wide = width + 1
    count = images * (height + 1) * wide
    pixel = tl.program_id(0)
    row = pixel // width  # of all images
    at = (row // height * (height + 1) + row % height) * wide + pixel % width
    columns = tl.program_id(1) * BN + tl.arange(0, BN)
    known = columns < K
    total = tl.zeros([BN], tl.float32)
    for part in tl.static_range(PARTS):
        here = parts + (part * count + at).to(tl.int64) * K + columns
        total += tl.load(here, mask=known, other=0.0).to(tl.float32)
    if BIAS:
        total += tl.load(bias + columns, mask=known, other=0.0).to(tl.float32)
    _write(y, residual, pixel.to(tl.int64) * K + columns, total, known, ADD)


@triton_op("sdtrt::conv3x3", mutates_args={})
def conv3x3(
    x: Tensor,
    weight: Tensor,
    scale: Tensor,
    scales: Tensor,
    bias: Tensor | None,
    dtype: torch.dtype,
    residual: Tensor | None = None,
) -> Tensor:
    """Convolve with stride 1 and one pixel of zeros around the image.

    Args:
        x: (N, C, H + 1, W + 1), the bits of float8_e4m3fn as uint8, channels_last; the last row and column are zero.
        weight: (K, 9 * C), float8_e4m3fn: for each output channel its taps row by row, all channels of a tap together.
        scale: (), float32: value of one FP8 unit of `x`.
        scales: (K,), float32: the same of `weight`, by output channel.
        bias: (K,) or None.
        dtype: type of the result.
        residual: (N, K, H, W), channels_last, which is added, or None.

    Returns:
        (N, K, H, W), channels_last. Where the sum is cut into parts, a part above the largest number of `dtype` is
        infinite, as a result would be.
    """
    images, channels, height, width = x.shape[0], x.shape[1], x.shape[2] - 1, x.shape[3] - 1
    columns, pixels = weight.shape[0], x.shape[0] * x.shape[2] * x.shape[3]
    y = new_image(images, columns, height, width, dtype, x.device)
    programs = _multiprocessors(x.device)
    # What a kernel does not read is any tensor.
    added, more = scales if bias is None else bias, scales if residual is None else residual
    flags = {"BIAS": bias is not None, "ADD": residual is not None}
    tile = _choose(pixels, channels, columns, programs)
    if tile in (_PART, _SMALL_PART):
        tiles_m, tiles_n = triton.cdiv(pixels, tile.pixels), triton.cdiv(columns, tile.channels)
        cut = max(2, min(_MOST_PARTS, (1 + (tile is _PART)) * programs // (tiles_m * tiles_n)))
        parts = torch.empty((cut, pixels, columns), dtype=dtype, device=x.device)
        wrap_triton(_conv3x3_parts)[(tiles_m * tiles_n, cut)](
            x, weight, scale, scales, parts, images, height, width, tiles_m, C=channels, K=columns, BM=tile.pixels,
            BN=tile.channels, BK=tile.depth, PARTS=cut, num_warps=tile.warps, num_stages=tile.stages,
        )  # fmt: skip
        wrap_triton(_add_parts)[(images * height * width, triton.cdiv(columns, _LANES))](
            parts, added, more, y, images, height, width, K=columns, BN=_LANES, PARTS=cut, **flags, num_warps=2,
        )  # fmt: skip
        return y
    tiles_m, tiles_n = triton.cdiv(pixels, tile.pixels), triton.cdiv(columns, tile.channels)
    wrap_triton(_conv3x3)[(min(programs, tiles_m * tiles_n),)](
        x, weight, scale, scales, added, more, y, images, height, width, tiles_m, tiles_n, C=channels, K=columns,
        BM=tile.pixels, BN=tile.channels, BK=tile.depth, GROUP=_GROUP, PROGRAMS=programs, **flags,
        num_warps=tile.warps, num_stages=tile.stages,
    )  # fmt: skip
    return y


def _choose(pixels: int, channels: int, columns: int, programs: int) -> Tile:
    """The tile that takes the least time, by rounds of all multiprocessors; parts where half of them would be idle."""

    def tiles(tile: Tile) -> int:
        return triton.cdiv(pixels, tile.pixels) * triton.cdiv(columns, tile.channels)

    def time_us(tile: Tile) -> float:
        steps = 9 * triton.cdiv(channels, tile.depth)
        return triton.cdiv(tiles(tile), programs) * (steps * tile.step_us + tile.end_us)

    if tiles(_SQUARE) <= programs // 2:
        return _PART if pixels > _FEW_PIXELS else _SMALL_PART
    return min((_TALL, _SHORT, _SQUARE), key=time_us)


def _multiprocessors(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count
