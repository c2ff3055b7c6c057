from __future__ import annotations

from rule_engines import GFLOP, MB, PLAIN, Case, engine, layer, tensor

WIDE, HALF = tensor("x", 1, 64, dtype="float32"), tensor("y", 1, 64)
FLOAT = {"precision": "float32", "reads": [WIDE], "writes": [tensor("z", 1, 64, dtype="float32")]}
HALVES = layer("most", "conv", 4.0, reads=[HALF], writes=[tensor("y2", 1, 64)])

FIRES = [
    Case(
        engine(HALVES, layer("conv", "conv", 1.0, **FLOAT), layer("add", "pointwise", 0.5, **FLOAT)),
        cost_ms=0.75,
        layers=("conv", "add"),
        says=("1 conv, 1 pointwise", "2 layers in float32 (27.3 %"),
    ),
    # Built without a word on precision: most of it is half. A third of the bytes are in half already.
    Case(
        engine(
            HALVES,
            layer("norm", "norm", 0.6, precision="float32", reads=[WIDE], writes=[HALF]),
            precision=None,
        ),
        cost_ms=0.2,
        layers=("norm",),
    ),
    # On plain arithmetic: 1 GFLOP takes 0.02 ms on the units for float32.
    Case(
        engine(HALVES, layer("c", "conv", 1.0, kernel=PLAIN, flops=GFLOP, bytes_moved=MB, **FLOAT)),
        cost_ms=0.98,
        layers=("c",),
    ),
    Case(
        engine(layer("conv", "conv", 1.0, **FLOAT), component="vae_decoder"),
        cost_ms=0.5,
        layers=("conv",),
        says=("known to be necessary",),
    ),
]
QUIET = [
    Case(engine(layer("conv", "conv", 1.0, **FLOAT), precision="fp32")),
    Case(engine(layer("conv", "conv", 1.0, **FLOAT), precision=None)),
    Case(engine(HALVES, layer("cast", "reformat", 1.0, **FLOAT))),
    Case(engine(layer("inside only", "norm", 1.0, precision="float32", reads=[HALF], writes=[HALF]))),
]
