"""LayerNorm of a sum, with the bias of the matmul before it and quantization to FP8 after it, in Triton.

A transformer block adds a layer's result to its residual, needs the sum again later, and normalizes it: this is one
pass over memory. Inductor decides for each sum whether to write it or to add its terms again, and took up to 1.7 times
as long.
"""

# mypy: ignore-errors
# ruff: noqa: N803, ANN001, ANN202

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.library import triton_op, wrap_triton

from sdtrt.engines.backends.inductor.kernels.output import load_quant_scale, store

LONGEST_ROW = 2048
_ROWS = 4  # of a program: within 2 % of the fastest for rows of 320 to 1280 numbers on an H200


@triton.jit
def _layer_norm(
    x, shift, residual, weight, bias, quant_scale, total, y, rows, EPS: tl.constexpr, C: tl.constexpr, BC: tl.constexpr,
    BM: tl.constexpr, SHIFT: tl.constexpr, RESIDUAL: tl.constexpr, ROUND: tl.constexpr,
):  # fmt: skip
    by = load_quant_scale(quant_scale, ROUND)
    row = tl.program_id(0) * BM + tl.arange(0, BM)
    column = tl.arange(0, BC)
    inside = column < C
    known = (row < rows)[:, None] & inside[None, :]
    where = row[:, None].to(tl.int64) * C + column[None, :]
    values = tl.load(x + where, mask=known, other=0.0).to(tl.float32)
    if SHIFT:
        values += tl.load(shift + column, mask=inside, other=0.0).to(tl.float32)[None, :]
    if RESIDUAL:
        values += tl.load(residual + where, mask=known, other=0.0).to(tl.float32)
    if SHIFT or RESIDUAL:
        tl.store(total + where, values.to(total.dtype.element_ty), mask=known)
    mean = tl.sum(values, 1) / C
    values = tl.where(known, values - mean[:, None], 0.0)
    scale = tl.rsqrt(tl.sum(values * values, 1) / C + EPS)
    values *= scale[:, None] * tl.load(weight + column, mask=inside, other=0.0).to(tl.float32)[None, :]
    values += tl.load(bias + column, mask=inside, other=0.0).to(tl.float32)[None, :]
    store(y, where, values, by, known, ROUND)


@triton_op("sdtrt::layer_norm", mutates_args={})
def layer_norm(
    x: Tensor,
    shift: Tensor | None,
    residual: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    eps: float,
    quant_scale: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """LayerNorm over the last axis of `x + shift + residual`.

    Args:
        x: (..., C), contiguous, in half precision; C is at most 2048.
        shift: (C,) or None.
        residual: (..., C), contiguous, or None.
        weight: (C,).
        bias: (C,).
        eps: added to the variance.
        quant_scale: (), float32: factor before rounding to float8_e4m3fn, or None for a result in half precision.

    Returns:
        The sum, of the type of `x`, or nothing, (0,), where there is nothing to add; and the norm, of the same type,
        or as uint8 the bits of FP8.
    """
    size, x = x.shape[-1], x.contiguous()
    rows = x.numel() // size
    y = torch.empty(x.shape, dtype=x.dtype if quant_scale is None else torch.uint8, device=x.device)
    changed = any(t is not None for t in (shift, residual))
    total = torch.empty(x.shape if changed else (0,), dtype=x.dtype, device=x.device)
    # What the kernel does not read is any tensor that is there already.
    optional = [x if t is None else t for t in (shift, None if residual is None else residual.contiguous())]
    wrap_triton(_layer_norm)[(triton.cdiv(rows, _ROWS),)](
        x, *optional, weight, bias, x if quant_scale is None else quant_scale, total if changed else y, y, rows,
        EPS=eps, C=size, BC=triton.next_power_of_2(size), BM=_ROWS, SHIFT=shift is not None,
        RESIDUAL=residual is not None, ROUND=quant_scale is not None, num_warps=4,
    )  # fmt: skip
    return total, y
