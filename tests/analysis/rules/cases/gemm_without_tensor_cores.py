from __future__ import annotations

from rule_engines import GFLOP, MB, TENSOR, Case, engine, layer

WORK = {"flops": 10 * GFLOP, "bytes_moved": 10 * MB}
ROW = {"flops": GFLOP // 100, "bytes_moved": 10 * MB}

FIRES = [
    Case(
        engine(
            layer("q", "gemm", 1.5, kernel="cutlass_80_simt_sgemm_128x32_8x5_nt_align1", **WORK),
            layer("qk", "attention", 0.6, kernel="volta_hgemm_128x64", **WORK),
        ),
        cost_ms=1.9,
        layers=("q", "qk"),
        says=(
            "2 products on plain arithmetic",
            "q the longest",
        ),
    )
]
QUIET = [
    Case(engine(layer("q", "gemm", 1.5, kernel=TENSOR, **WORK), layer("c", "conv", 1.5, kernel="x_ffma", **WORK))),
    Case(engine(layer("one row", "gemm", 1.5, kernel="sm50_xmma_cublas_gemvx_f16f16_f32", **ROW))),
]
