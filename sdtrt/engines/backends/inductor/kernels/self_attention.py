"""Attention to many keys in FP8, in Triton: it computes no exponential, and the result can be quantized to FP8.

Softmax limits the speed of FP8 attention: with heads of 64 a GPU computes 16 exponentials per multiprocessor and cycle,
and needs one for every 256 operations of its tensor cores. But a number in FP8 is its own logarithm: its bits, read as
an integer, are eight times the exponent of two, and between two powers a straight line (Schraudolph, "A fast, compact
approximation of the exponential function", 1999). So the bits of 2^x are 8 x, rounded to an integer: one fused
multiply-add in half precision, for two numbers at once. The line is off by at most 6 % and by 2 % in the mean, which is
less than the rounding itself (2.6 %). An error that all weights share cancels, because the sum is of rounded weights.

Adding 1024 in half precision makes the integer: there one is the unit of the last place, and the low byte is the bits.
Weights are summed by a matmul with ones, which costs less than additions.

Threads copy the tiles: TMA took as long for many keys and up to 6 µs more for 1,024.
"""

# mypy: ignore-errors
# ruff: noqa: N803, ANN001, ANN202

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.library import triton_op, wrap_triton

from sdtrt.engines.backends.inductor.kernels.output import load_quant_scale, store

SIZES = (64, 128)  # of a head
PER_OCTAVE = 8  # growth of the bits of FP8 (E4M3), read as an integer, when the number doubles
_QUERIES, _KEYS = 64, 128  # of a tile


@triton.jit
def _halves(x):
    """The nearest finite numbers of half precision, two at once."""
    return tl.inline_asm_elementwise(
        "cvt.rn.satfinite.f16x2.f32 $0, $2, $1;", "=r,r,r", [x], dtype=tl.float16, is_pure=True, pack=2
    )  # fmt: skip


@triton.jit
def _bits(x, by, to):
    """The integers nearest to x * by + to - 1024, none below zero, as FP8: four at once."""
    return tl.inline_asm_elementwise(
        """{
        .reg .b32 a, b, least;
        mov.b32 least, 0x64006400;
        fma.rn.f16x2 a, $1, $3, $5;
        fma.rn.f16x2 b, $2, $4, $6;
        max.f16x2 a, a, least;
        max.f16x2 b, b, least;
        prmt.b32 $0, a, b, 0x6420;
        }""",
        "=r,r,r,r,r,r,r", [x, by, to], dtype=tl.float8e4nv, is_pure=True, pack=4,
    )  # fmt: skip


@triton.jit
def _ones(like):
    """1 in FP8, but no constant: that would be written to shared memory again in every step."""
    return tl.inline_asm_elementwise(
        "and.b32 $0, $1, 0; or.b32 $0, $0, 0x38383838;", "=r,r", [like], dtype=tl.float8e4nv, is_pure=True, pack=4
    )  # fmt: skip


@triton.jit
def _self_attention(
    qk, vt, codes, dequant_scale, quant_scale, y, count, keys, heads, BM: tl.constexpr, BN: tl.constexpr,
    D: tl.constexpr, RAGGED: tl.constexpr, ROUND: tl.constexpr,
):  # fmt: skip
    head, image = tl.program_id(1), tl.program_id(2)
    width = heads * D
    first = (image * keys).to(tl.int64)
    qk += first * 2 * width + head * D
    vt += (head * D).to(tl.int64) * count + first
    at, key, lane = tl.program_id(0) * BM + tl.arange(0, BM), tl.arange(0, BN), tl.arange(0, D)
    q = tl.load(qk + (tl.minimum(at, keys - 1) * 2 * width)[:, None] + lane[None, :])
    from_k = qk + width + (key * 2 * width)[:, None] + lane[None, :]
    from_v = vt + (lane * count)[:, None] + key[None, :]
    by = tl.load(codes).to(tl.float16)
    step = by.to(tl.float32)
    ones = _ones((tl.arange(0, 16)[:, None] + tl.arange(0, BN)[None, :]).to(tl.uint8))
    top = tl.full([BM], -65504.0, tl.float32)
    before = tl.full([BM], 65504.0, tl.float32)
    output = tl.zeros([BM, D], tl.float32)
    total = tl.zeros([BM, 16], tl.float32)
    for n in tl.range(0, keys, BN):
        here = n + key < keys
        start = from_k + n * 2 * width
        k = tl.load(start, mask=here[:, None], other=0.0) if RAGGED else tl.load(start)
        scores = _halves(tl.dot(q, k.T))
        if RAGGED:
            scores = tl.where(here[None, :], scores, float("-inf"))
        top = tl.maximum(top, tl.max(scores, 1).to(tl.float32))
        # 119.7 are the bits of 256 less the mean error of the line. Six more would fit, so it is not rounded up.
        to = tl.clamp(1143.7 - top * step, -60000.0, 60000.0)
        to = (to - tl.abs(to) / 2048).to(tl.float16)
        weights = _bits(scores, by, to[:, None])
        # Earlier sums used another offset; the correction uses both offsets as rounded.
        after = to.to(tl.float32)
        shrunk = tl.exp2((after - before) / 8)[:, None]
        before = after
        v = tl.load(from_v + n, mask=here[None, :], other=0.0) if RAGGED else tl.load(from_v + n)
        # The last matmul overlaps with the first one of the next step; this order was the faster one.
        total = tl.dot(weights, ones.T, total * shrunk)
        output = tl.dot(weights, v.T, output * shrunk)
    output *= (tl.load(dequant_scale) / tl.max(total, 1))[:, None]
    where = (at * width)[:, None] + head * D + lane[None, :]
    store(y + first * width, where, output, load_quant_scale(quant_scale, ROUND), (at < keys)[:, None], ROUND)


@triton_op("sdtrt::self_attention", mutates_args={})
def self_attention(
    qk: Tensor,
    vt: Tensor,
    codes: Tensor,
    dequant_scale: Tensor,
    images: int,
    heads: int,
    dtype: torch.dtype,
    quant_scale: Tensor | None = None,
) -> Tensor:
    """softmax(q k^T) v of each image and head, from numbers in FP8.

    Args:
        qk: (images * pixels, 2 * heads * D), float8_e4m3fn: queries of all heads, then keys. D is 64 or 128. A score
            above 65504 counts as 65504: vectors longer than 250 may reach it.
        vt: (heads * D, images * pixels), float8_e4m3fn: values, transposed. Threads copy 16 numbers at once where
            pixels are a multiple of 16, else one by one.
        codes: (), float32: factor of the scores; a weight doubles when its score grows by `PER_OCTAVE`.
        dequant_scale: (), float32: value of one FP8 unit of `vt`.
        images: number of images.
        heads: number of heads.
        dtype: type of the result when it is not quantized.
        quant_scale: (), float32: factor before rounding to float8_e4m3fn, or None for a result in half precision.

    Returns:
        (images, pixels, heads, D), contiguous, of `dtype`, or as uint8 the bits of FP8.
    """
    count, size = qk.shape[0], qk.shape[1] // (2 * heads)
    pixels = count // images
    kind = dtype if quant_scale is None else torch.uint8
    y = torch.empty((images, pixels, heads, size), dtype=kind, device=qk.device)
    wrap_triton(_self_attention)[(triton.cdiv(pixels, _QUERIES), heads, images)](
        qk, vt, codes, dequant_scale, dequant_scale if quant_scale is None else quant_scale, y, count, pixels, heads,
        BM=_QUERIES, BN=_KEYS, D=size, RAGGED=pixels % _KEYS > 0, ROUND=quant_scale is not None, num_warps=4,
        num_stages=3,
    )  # fmt: skip
    return y
