"""A linear layer in FP8 whose second half gates the first, GELU, and rounding to FP8, in one Triton kernel.

Apart, the product writes both halves in half precision and a second kernel reads them again: with 16 rows of SDXL that
was 0.42 GB per layer. Here a program holds the same tile of both halves and writes a quarter of one of them.

The rows of both halves that make a tile lie behind each other, so that one product makes both: as two, tensor cores
would read the tile of inputs twice, and shared memory is what limits them.
"""

# mypy: ignore-errors
# ruff: noqa: N803, ANN001, ANN202

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.library import triton_op, wrap_triton

TILE = 128
_GROUP = 8  # tiles of rows that use the same weights one after another


@triton.jit
def _gelu(x):
    """Its tanh form (see gelu.py), by the instruction that a GPU has for tanh: FP8 rounds at 60 times its error."""
    inner = x * (0.7978845608028654 + 0.035677408136300125 * x * x)
    bent = tl.inline_asm_elementwise("tanh.approx.f32 $0, $1;", "=f,f", [inner], dtype=tl.float32, is_pure=True, pack=1)
    return 0.5 * x + 0.5 * x * bent


@triton.jit
def _gated(
    x, w, scale, scales, bias, factor, y, rows, tiles_m, tiles_n, D: tl.constexpr, F: tl.constexpr, B: tl.constexpr,
    GROUP: tl.constexpr, PROGRAMS: tl.constexpr, BIAS: tl.constexpr,
):  # fmt: skip
    x = x.to(tl.pointer_type(tl.float8e4nv), bitcast=True)
    inputs = tl.make_tensor_descriptor(x, [rows, D], [D, 1], [B, B])
    weights = tl.make_tensor_descriptor(w, [2 * F, D], [D, 1], [2 * B, B])
    by, narrow = tl.load(scale), tl.load(factor)
    for tile in tl.range(tl.program_id(0), tiles_m * tiles_n, PROGRAMS):
        first = tile // (GROUP * tiles_n) * GROUP
        tall = min(tiles_m - first, GROUP)
        inner = tile % (GROUP * tiles_n)
        m = (first + inner % tall) * B
        n = (inner // tall) * B
        both = tl.zeros((B, 2 * B), tl.float32)
        for k in range(0, D, B):
            both = tl.dot(inputs.load([m, k]), weights.load([2 * n, k]).T, both)
        rows_of_both = 2 * n + tl.arange(0, 2 * B)
        both *= (tl.load(scales + rows_of_both) * by)[None, :]
        if BIAS:
            both += tl.load(bias + rows_of_both).to(tl.float32)[None, :]
        value, gate = tl.split(tl.permute(tl.reshape(both, (B, 2, B)), (0, 2, 1)))
        columns = n + tl.arange(0, B)
        made = tl.clamp(value * _gelu(gate) * narrow, -448.0, 448.0).to(tl.float8e4nv)
        at = m + tl.arange(0, B)
        where = y + at.to(tl.int64)[:, None] * F + columns[None, :]
        tl.store(where, made.to(tl.uint8, bitcast=True), mask=(at < rows)[:, None])


@triton_op("sdtrt::gated", mutates_args={})
def gated(x: Tensor, weight: Tensor, scale: Tensor, scales: Tensor, bias: Tensor | None, factor: Tensor) -> Tensor:
    """`value * gelu(gate)`, rounded, where value and gate are the halves of a linear layer.

    Args:
        x: (M, D), the bits of float8_e4m3fn as uint8.
        weight: (2 * F, D), float8_e4m3fn; F is a multiple of 128. The rows of 128 values are followed by those of their
            gates, and so on (`by_tiles`).
        scale: (), float32: what one unit of `x` stands for.
        scales: (2 * F,), float32: the same of `weight`, by row.
        bias: (2 * F,), in the order of `weight`, or None.
        factor: (), float32: what the result is multiplied with before rounding.

    Returns:
        (M, F), uint8: the bits of float8_e4m3fn.
    """
    rows, inner, columns = x.shape[0], x.shape[1], weight.shape[0] // 2
    y = torch.empty((rows, columns), dtype=torch.uint8, device=x.device)
    tiles_m, tiles_n = triton.cdiv(rows, TILE), columns // TILE
    programs = torch.cuda.get_device_properties(x.device).multi_processor_count
    wrap_triton(_gated)[(min(programs, tiles_m * tiles_n),)](
        x, weight, scale, scales, scales if bias is None else bias, factor, y, rows, tiles_m, tiles_n, D=inner,
        F=columns, B=TILE, GROUP=_GROUP, PROGRAMS=programs, BIAS=bias is not None, num_warps=8, num_stages=3,
    )  # fmt: skip
    return y
