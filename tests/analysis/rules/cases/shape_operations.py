from __future__ import annotations

from rule_engines import Case, engine, layer, tensor

SIZES = tensor("sizes", 4, dtype="int64")


def profiled_by_onnxruntime(*layers):
    return engine(*layers).model_copy(update={"backend": "onnxruntime"})


FIRES = [
    Case(
        engine(
            layer("called", "other", 0.002, op="shape_call"),
            layer("gather", "copy", 0.004, op="Gather", writes=[SIZES]),
            layer("reshape", "shape", 0.001, op="Reshape", writes=[tensor("x", 1, 64)]),
        ),
        cost_ms=0.007,
        layers=("gather", "called", "reshape"),
        says=("2 for sizes and 1 to rename",),
    ),
    Case(
        profiled_by_onnxruntime(
            layer("copies", "shape", 0.205, op="Reshape"), layer("renames", "shape", 0.004, op="Reshape")
        ),
        cost_ms=0.2,
        layers=("copies",),
        says=("1 shape operation",),
    ),
]
QUIET = [
    Case(engine(layer("reshape", "shape", 0, op="Reshape"), layer("untimed", "shape", None, op="Reshape"))),
    Case(profiled_by_onnxruntime(*(layer(f"reshape {i}", "shape", 0.005, op="Reshape") for i in range(300)))),
    Case(engine(layer("tokens", "copy", 0.5, op="Gather", writes=[tensor("x", 1, 77, 768)]))),
]
