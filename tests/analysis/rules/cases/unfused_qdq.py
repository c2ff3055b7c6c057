from __future__ import annotations

from rule_engines import Case, engine, layer, node, tensor

HALF, INT8 = tensor("x", 1, 64), tensor("x8", 1, 64, dtype="int8")
FP8, BOOL = tensor("x8", 1, 64, dtype="float8_e4m3fn"), tensor("b", 1, 64, dtype="bool")
NODE = node("QuantizeLinear_1", "QuantizeLinear", "other")

FIRES = [
    Case(
        engine(layer("q", "reformat", 0.25, reads=[HALF], writes=[INT8], attributes={"Origin": "QDQ"})),
        cost_ms=0.25,
        layers=("q",),
    ),
    Case(engine(layer("s", "pointwise", 0.5, op="Scale", reads=[FP8], writes=[HALF])), cost_ms=0.5, layers=("s",)),
    Case(
        engine(layer("k", "pointwise", 0.5, op="kgen", nodes=("QuantizeLinear_1",)), nodes=(NODE,)),
        cost_ms=0.5,
        layers=("k",),
    ),
]
QUIET = [
    Case(engine(layer("c", "conv", 1.0, reads=[HALF], writes=[INT8]))),
    Case(engine(layer("r", "reformat", 1.0, reads=[BOOL], writes=[HALF]))),
    Case(engine(layer("s", "pointwise", 1.0, op="Scale", reads=[HALF], writes=[tensor("y", 1, 64)]))),
]
