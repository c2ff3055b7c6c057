from __future__ import annotations

from rule_engines import Case, engine, layer, tensor

FIRST, LAST = tensor("x", 1, 64, layout="linear"), tensor("y", 1, 64, layout="channels last")

FIRES = [
    Case(
        engine(
            layer("r", "reformat", 0.25, reads=[FIRST], writes=[LAST]),
            layer("t", "reformat", 0.5, op="Transpose", reads=[tensor("a", 1, 64)], writes=[tensor("b", 64, 1)]),
        ),
        cost_ms=0.75,
        layers=("t", "r"),
        says=("2 layout changes", 'from "linear" to "channels last"'),
    )
]
QUIET = [
    Case(engine(layer("cast", "reformat", 0.5, reads=[FIRST], writes=[tensor("y", 1, 64, dtype="float32")]))),
    Case(engine(layer("no-op", "reformat", None, op="NoOp", reads=[FIRST], writes=[LAST]))),
    Case(engine(layer("conv", "conv", 0.5, reads=[FIRST], writes=[LAST]))),
]
