"""Attention to a few keys, such as the tokens of one prompt, in Triton; the result can be quantized to FP8.

All keys fit into one tile, so a program keeps keys and values of one head and loops over queries: no online softmax.
77 keys are computed as 64 and 16, not as 128.
"""

# mypy: ignore-errors
# ruff: noqa: N803, ANN001, ANN202

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.library import triton_op, wrap_triton

MOST_KEYS = 80
SIZES = (64, 128)  # of a head
_QUERIES = 64  # of one step of a program
_LOG2_E = 1.4426950408889634  # e^x = 2^(x log2 e)


@triton.jit
def _short_attention(
    q, k, v, quant_scale, y, queries, keys, qb, qh, qs, kb, kh, ks, vb, vh, vs, heads, BY: tl.constexpr,
    BM: tl.constexpr, STEPS: tl.constexpr, D: tl.constexpr, ROUND: tl.constexpr,
):  # fmt: skip
    head, batch = tl.program_id(1), tl.program_id(2)
    lanes = tl.arange(0, D)
    first, last = tl.arange(0, 64), 64 + tl.arange(0, 16)
    k += batch.to(tl.int64) * kb + head * kh + lanes[None, :]
    v += batch.to(tl.int64) * vb + head * vh + lanes[None, :]
    k_first = tl.load(k + first[:, None] * ks, mask=(first < keys)[:, None], other=0.0)
    v_first = tl.load(v + first[:, None] * vs, mask=(first < keys)[:, None], other=0.0)
    k_last = tl.load(k + last[:, None] * ks, mask=(last < keys)[:, None], other=0.0)
    v_last = tl.load(v + last[:, None] * vs, mask=(last < keys)[:, None], other=0.0)
    narrow = 1.0
    if ROUND:
        narrow = tl.load(quant_scale)
    for step in tl.range(STEPS, num_stages=2):
        at = (tl.program_id(0) * STEPS + step) * BM + tl.arange(0, BM)
        inside = (at < queries)[:, None]
        q_tile = tl.load(
            q + batch.to(tl.int64) * qb + head * qh + at[:, None] * qs + lanes[None, :], mask=inside, other=0.0
        )
        near = tl.where((first < keys)[None, :], tl.dot(q_tile, k_first.T) * BY, float("-inf"))
        far = tl.where((last < keys)[None, :], tl.dot(q_tile, k_last.T) * BY, float("-inf"))
        top = tl.maximum(tl.max(near, 1), tl.max(far, 1))
        near = tl.exp2(near - top[:, None])
        far = tl.exp2(far - top[:, None])
        total = tl.sum(near, 1) + tl.sum(far, 1)
        output = tl.dot(far.to(v.dtype.element_ty), v_last, tl.dot(near.to(v.dtype.element_ty), v_first))
        output *= (narrow / total)[:, None]
        where = y + ((batch.to(tl.int64) * queries + at)[:, None] * heads + head) * D + lanes[None, :]
        if ROUND:
            tl.store(where, tl.clamp(output, -448.0, 448.0).to(tl.float8e4nv).to(tl.uint8, bitcast=True), mask=inside)
        else:
            tl.store(where, output.to(y.dtype.element_ty), mask=inside)


@triton_op("sdtrt::short_attention", mutates_args={})
def short_attention(q: Tensor, k: Tensor, v: Tensor, scale: float, quant_scale: Tensor | None = None) -> Tensor:
    """softmax(scale * q k^T) v over at most 80 keys.

    Args:
        q: (B, heads, queries, D) in half precision, the last axis contiguous; D is 64 or 128.
        k: (B, heads, keys, D).
        v: (B, heads, keys, D).
        scale: factor of the scores.
        quant_scale: (), float32: factor before rounding to float8_e4m3fn, or None for a result in half precision.

    Returns:
        (B, queries, heads, D), contiguous, of the type of `q`, or as uint8 the bits of FP8.
    """
    batch, heads, queries, size = q.shape
    keys = k.shape[2]
    kind = q.dtype if quant_scale is None else torch.uint8
    y = torch.empty((batch, queries, heads, size), dtype=kind, device=q.device)
    tiles = triton.cdiv(queries, _QUERIES)
    # More steps share what is loaded once, fewer keep all multiprocessors busy.
    work = tiles * heads * batch
    steps = 4 if work >= 2560 else 2 if work >= 480 else 1
    wrap_triton(_short_attention)[(triton.cdiv(tiles, steps), heads, batch)](
        q, k, v, q if quant_scale is None else quant_scale, y, queries, keys,
        *(t.stride(axis) for t in (q, k, v) for axis in range(3)), heads, BY=scale * _LOG2_E, BM=_QUERIES, STEPS=steps,
        D=size, ROUND=quant_scale is not None, num_warps=4,
    )  # fmt: skip
    return y
