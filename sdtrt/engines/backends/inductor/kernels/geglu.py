"""GEGLU in FP8, in one Triton kernel: a linear layer whose second half gates the first, GELU, and quantization.

As separate kernels, the matmul writes both halves in half precision and a second kernel reads them again: with 16 rows
of SDXL that was 0.42 GB per layer. Here a program holds the same tile of both halves and writes a quarter of the bytes.

The weight rows of both halves that make a tile are adjacent, so that one matmul computes both: as two matmuls, tensor
cores would read the tile of inputs twice. Two programs share a multiprocessor, with tiles of half the size: while one
computes GELU and rounds, which took a third of the time, the other multiplies.

TMA copies the tiles where rows are many; it needs 2 µs of every launch for its descriptors. Threads copy few rows.
"""

# mypy: ignore-errors
# ruff: noqa: N803, ANN001, ANN202

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.library import triton_op, wrap_triton

TILE = 64  # columns of a half
_ROWS, _AT_ONCE = 128, 2  # of a tile; programs on a multiprocessor
_GROUP = 8  # tiles of rows that use the same weights one after another
# Multiplications up to which threads copy: on an H200 as fast as TMA or faster with 1.3e10, or slower with 2.7e10.
_FEW = 2**34


@triton.jit
def _gelu(x):
    """The tanh form (see passes/tanh_gelu.py) by the tanh instruction; FP8 rounds at 60 times its error."""
    inner = x * (0.7978845608028654 + 0.035677408136300125 * x * x)
    bent = tl.inline_asm_elementwise("tanh.approx.f32 $0, $1;", "=f,f", [inner], dtype=tl.float32, is_pure=True, pack=1)
    return 0.5 * x + 0.5 * x * bent


@triton.jit
def _gated(
    x, w, scale, scales, bias, quant_scale, y, rows, tiles_m, tiles_n, D: tl.constexpr, F: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, GROUP: tl.constexpr, PROGRAMS: tl.constexpr,
    BIAS: tl.constexpr, TMA: tl.constexpr,
):  # fmt: skip
    x = x.to(tl.pointer_type(tl.float8e4nv), bitcast=True)
    if TMA:
        inputs = tl.make_tensor_descriptor(x, [rows, D], [D, 1], [BM, BK])
        weights = tl.make_tensor_descriptor(w, [2 * F, D], [D, 1], [2 * BN, BK])
    by, narrow = tl.load(scale), tl.load(quant_scale)
    for tile in tl.range(tl.program_id(0), tiles_m * tiles_n, PROGRAMS):
        first = tile // (GROUP * tiles_n) * GROUP
        tall = min(tiles_m - first, GROUP)
        inner = tile % (GROUP * tiles_n)
        m = (first + inner % tall) * BM
        n = (inner // tall) * BN
        at, rows_of_both = m + tl.arange(0, BM), 2 * n + tl.arange(0, 2 * BN)
        # Loaded before the matmul: a load after it would wait for it.
        dequant_scales = tl.load(scales + rows_of_both) * by
        if BIAS:
            shift = tl.load(bias + rows_of_both)
        both = tl.zeros((BM, 2 * BN), tl.float32)
        if TMA:
            for k in range(0, D, BK):
                both = tl.dot(inputs.load([m, k]), weights.load([2 * n, k]).T, both)
        else:
            step = tl.arange(0, BK)[None, :]
            from_x = x + tl.minimum(at, rows - 1).to(tl.int64)[:, None] * D + step
            from_w = w + (rows_of_both * D)[:, None] + step
            for k in range(0, D, BK):
                both = tl.dot(tl.load(from_x + k), tl.load(from_w + k).T, both)
        both *= dequant_scales[None, :]
        if BIAS:
            both += shift.to(tl.float32)[None, :]
        value, gate = tl.split(tl.permute(tl.reshape(both, (BM, 2, BN)), (0, 2, 1)))
        rounded = tl.clamp(value * _gelu(gate) * narrow, -448.0, 448.0).to(tl.float8e4nv)
        where = y + at.to(tl.int64)[:, None] * F + (n + tl.arange(0, BN))[None, :]
        tl.store(where, rounded.to(tl.uint8, bitcast=True), mask=(at < rows)[:, None])


@triton_op("sdtrt::gated", mutates_args={})
def gated(x: Tensor, weight: Tensor, scale: Tensor, scales: Tensor, bias: Tensor | None, quant_scale: Tensor) -> Tensor:
    """`value * gelu(gate)`, quantized, where value and gate are the halves of a linear layer.

    Args:
        x: (M, D), the bits of float8_e4m3fn as uint8.
        weight: (2 * F, D), float8_e4m3fn; F is a multiple of `TILE`. The rows of so many values are followed by those
            of their gates, and so on (`by_tiles`).
        scale: (), float32: value of one FP8 unit of `x`.
        scales: (2 * F,), float32: the same of `weight`, by row.
        bias: (2 * F,), in the order of `weight`, or None.
        quant_scale: (), float32: factor of the result before it is rounded.

    Returns:
        (M, F), uint8: the bits of float8_e4m3fn.
    """
    rows, inner, columns = x.shape[0], x.shape[1], weight.shape[0] // 2
    y = torch.empty((rows, columns), dtype=torch.uint8, device=x.device)
    tiles_m, tiles_n = triton.cdiv(rows, _ROWS), columns // TILE
    programs = _AT_ONCE * torch.cuda.get_device_properties(x.device).multi_processor_count
    use_tma = rows * inner * columns > _FEW or inner % 64 > 0
    deep, stages = (128, 3) if use_tma or inner % 128 == 0 else (64, 4)
    wrap_triton(_gated)[(min(programs, tiles_m * tiles_n),)](
        x, weight, scale, scales, scales if bias is None else bias, quant_scale, y, rows, tiles_m, tiles_n, D=inner,
        F=columns, BM=_ROWS, BN=TILE, BK=deep, GROUP=_GROUP, PROGRAMS=programs, BIAS=bias is not None, TMA=use_tma,
        num_warps=4, num_stages=stages,
    )  # fmt: skip
    return y
