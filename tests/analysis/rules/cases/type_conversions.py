from __future__ import annotations

from rule_engines import Case, engine, layer, tensor

X, X16 = tensor("x", 1, 64, dtype="float32"), tensor("x16", 1, 64)
Y, Y32 = tensor("y", 1, 64), tensor("y32", 1, 64, dtype="float32")
CONV = layer("conv", "conv", 1.0, reads=[X16], writes=[Y])
AFTER = layer("add", "pointwise", 1.0, reads=[Y32], writes=[tensor("z", 1, 64, dtype="float32")])

FIRES = [
    Case(
        engine(
            layer("in", "reformat", 0.25, reads=[X], writes=[X16]),
            CONV,
            layer("within", "reformat", 0.5, op="Cast", reads=[Y], writes=[Y32]),
            AFTER,
        ),
        cost_ms=0.75,
        layers=("within", "in"),
        says=("2 casts, 1 at the engine's inputs",),
    )
]
QUIET = [
    Case(engine(CONV, layer("layout", "reformat", 0.5, reads=[Y], writes=[tensor("y2", 1, 64)]))),
    Case(engine(layer("folded away", "reformat", 0, reads=[X], writes=[X16]))),
]
