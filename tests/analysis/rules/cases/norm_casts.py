from __future__ import annotations

from rule_engines import Case, engine, layer, tensor

X, X32 = tensor("x", 1, 64), tensor("x32", 1, 64, dtype="float32")
Y32, Y = tensor("y32", 1, 64, dtype="float32"), tensor("y", 1, 64)
CASTS = (
    layer("to float32", "reformat", 0.25, op="Cast", reads=[X], writes=[X32]),
    layer("to float16", "reformat", 0.5, op="Cast", reads=[Y32], writes=[Y]),
)
NORM = layer("norm", "norm", 1.0, reads=[X32], writes=[Y32], precision="float32")
MODULE = "down_blocks.0.resnets.0.norm1"

FIRES = [
    Case(engine(CASTS[0], NORM, CASTS[1]), cost_ms=0.75, layers=("to float16", "to float32")),
    Case(engine(CASTS[0].model_copy(update={"module": MODULE})), cost_ms=0.25, layers=("to float32",)),
]
QUIET = [
    Case(engine(CASTS[0], layer("conv", "conv", 1.0, reads=[X32], writes=[Y32]), CASTS[1])),
    Case(engine(layer("fused", "norm", 1.0, reads=[X], writes=[Y]))),
]
