from __future__ import annotations

from rule_engines import Case, engine, layer, tensor

X, Y = tensor("x", 1, 64, dtype="int8"), tensor("y", 1, 64)
Y8, Z = tensor("y8", 1, 64, dtype="int8"), tensor("z", 1, 64, dtype="int8")
CONV = layer("conv", "conv", 1.0, reads=[X], writes=[Y], precision="int8")
FUSED = layer("conv", "conv", 1.0, reads=[X], writes=[Z], precision="int8")
FLOAT = layer("conv", "conv", 1.0, reads=[tensor("x", 1, 64)], writes=[Y])
QUANTIZE = layer("q", "reformat", 0.25, reads=[Y], writes=[Y8], attributes={"Origin": "QDQ"})
LAYOUT = layer("r", "reformat", 0.1, reads=[Y], writes=[tensor("y2", 1, 64)])
BEHIND = layer("q", "pointwise", 0.25, op="Scale", reads=[tensor("y2", 1, 64)], writes=[Y8])

FIRES = [
    Case(engine(CONV, QUANTIZE, precision="int8"), cost_ms=0.25, layers=("q",), says=("1 layer to quantize again",)),
    Case(engine(CONV, LAYOUT, BEHIND, precision="int8"), cost_ms=0.25, layers=("q",)),
]
QUIET = [Case(engine(FUSED, precision="int8")), Case(engine(FLOAT, QUANTIZE, precision="int8"))]
