from __future__ import annotations

from rule_engines import GFLOP, MB, PLAIN, TENSOR, Case, engine, layer

WORK = {"flops": 10 * GFLOP, "bytes_moved": 10 * MB}  # 0.1 ms on tensor cores, 1 ms without

CONV_FIRES = [
    Case(
        engine(layer("a", "conv", 1.5, kernel=PLAIN, **WORK), layer("b", "conv", 0.2, kernel=TENSOR, **WORK)),
        cost_ms=1.4,
        layers=("a",),
        says=("1 convolution on plain arithmetic (82.4 %",),
    ),
    Case(
        engine(layer("a" * 999 + "b", "conv", 1.5, kernel=PLAIN, **WORK)),
        cost_ms=1.4,
        layers=("a" * 999 + "b",),
        says=(f" {'a' * 39}...{'a' * 37}b the longest",),
    ),
    # float32 has units as TF32; without FLOPs the cost is not known.
    Case(
        engine(layer("a", "conv", 1.5, kernel="ampere_scudnn_128x64_relu", precision="float32"), precision="fp32"),
        cost_ms=None,
        layers=("a",),
    ),
]
CONV_QUIET = [
    Case(engine(layer("a", "conv", 1.5, kernel=TENSOR, **WORK))),
    Case(engine(layer("the name does not say", "conv", 1.5, kernel="__myl_Conv_0x12", **WORK))),
    Case(engine(layer("depthwise", "conv", 1.5, kernel=PLAIN, attributes={"Groups": 320}, **WORK))),
    Case(engine(layer("waits for memory", "conv", 1.5, kernel=PLAIN, flops=GFLOP, bytes_moved=200 * MB))),
    Case(engine(layer("no such units", "conv", 1.5, kernel=PLAIN, precision="float64", **WORK))),
    Case(engine(layer("a float32 island", "conv", 1.5, kernel=PLAIN, precision="float32", **WORK))),
]

ROW = {"flops": GFLOP // 100, "bytes_moved": 10 * MB}

GEMM_FIRES = [
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
GEMM_QUIET = [
    Case(engine(layer("q", "gemm", 1.5, kernel=TENSOR, **WORK), layer("c", "conv", 1.5, kernel="x_ffma", **WORK))),
    Case(engine(layer("one row", "gemm", 1.5, kernel="sm50_xmma_cublas_gemvx_f16f16_f32", **ROW))),
]

FIRES = {"conv_without_tensor_cores": CONV_FIRES, "gemm_without_tensor_cores": GEMM_FIRES}
QUIET = {"conv_without_tensor_cores": CONV_QUIET, "gemm_without_tensor_cores": GEMM_QUIET}
