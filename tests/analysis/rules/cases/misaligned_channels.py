from __future__ import annotations

from rule_engines import GFLOP, MB, PLAIN, Case, engine, layer, tensor


def conv(read, written, time_ms=1.0, **more):
    shapes = {"reads": [tensor("x", 2, read, 64, 64)], "writes": [tensor("y", 2, written, 64, 64)]}
    return layer(f"{read} to {written}", "conv", time_ms, **shapes, **more)


def gemm(read, written, precision):
    shapes = {"reads": [tensor("x", 2, 77, read)], "writes": [tensor("y", 2, 77, written)]}
    return layer(f"{read} to {written}", "gemm", 1.0, precision=precision, **shapes)


FIRES = [
    Case(engine(conv(4, 320)), cost_ms=0.5, layers=("4 to 320",), says=("4 to 320",)),
    Case(engine(conv(6, 6)), cost_ms=1 - 36 / 64, layers=("6 to 6",)),
    Case(engine(gemm(24, 96, "int8")), cost_ms=0.25, layers=("24 to 96",)),
    Case(engine(gemm(30, 64, "float32"), precision="fp32"), cost_ms=1 - 30 / 32, layers=("30 to 64",)),
    # Three channels padded to four.
    Case(
        engine(
            layer(
                "first",
                "conv",
                1.0,
                reads=[tensor("x", 1, 3, 224, 224, layout="Channel major FP16 format where channel % 4 == 0")],
                writes=[tensor("y", 1, 64, 112, 112)],
            )
        ),
        cost_ms=0.25,
        layers=("first",),
    ),
    # A perfect kernel would save no more than 0.2 ms.
    Case(engine(conv(4, 320, flops=80 * GFLOP, bytes_moved=MB)), cost_ms=0.2, layers=("4 to 320",)),
]
QUIET = [
    Case(engine(layer("classes", "conv", 1.0, reads=[tensor("x", 1, 512, 1, 1)], writes=[tensor("y", 1, 1000, 1, 1)]))),
    Case(engine(conv(320, 640), gemm(24, 96, "float16"), gemm(32, 96, "int8"))),
    Case(engine(conv(4, 4, kernel=PLAIN), conv(4, 4, attributes={"Groups": 4}))),
    Case(engine(conv(4, 320)).model_copy(update={"backend": "onnxruntime"})),
]
