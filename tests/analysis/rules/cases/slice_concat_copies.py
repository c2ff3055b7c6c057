from __future__ import annotations

from rule_engines import Case, engine, layer, node, tensor

INT = tensor("sizes", 4, dtype="int64")
NODES = (
    node("/mid_block/Concat", "Concat", "copy", "mid_block", 0, 8),
    node("/mid_block/Resize", "Resize", "copy", "mid_block", 0, 8),
    node("size", "Concat", "copy"),
)

FIRES = [
    Case(
        engine(
            layer("slice", "copy", 0.25, op="Slice"),
            layer("joined", "copy", 0.5, op="kgen", nodes=("/mid_block/Concat",)),
            layer("/mid_block/x_output_0 copy", "reformat", 0.125),
            layer("generated", "copy", 1.0, op="kgen", kernel="__myl_MoveConc_0x12"),
            nodes=NODES,
        ),
        cost_ms=1.875,
        layers=("generated", "joined", "slice", "/mid_block/x_output_0 copy"),
    )
]
QUIET = [
    Case(engine(layer("resize", "copy", 0.5, op="kgen", nodes=("/mid_block/Resize",)), nodes=NODES)),
    Case(engine(layer("sizes", "copy", 0.5, op="Concat", writes=[INT]))),
    Case(engine(layer("shape only", "copy", 0.5, op="kgen", kernel="__myl_Conc_0", nodes=("size",)), nodes=NODES)),
    Case(engine(layer("fused", "pointwise", 0.5, nodes=("/mid_block/Concat",)), nodes=NODES)),
    Case(engine(layer("a skip", "copy", 0.5, op="Concat", module="up_blocks.1"))),
]
