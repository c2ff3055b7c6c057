from __future__ import annotations

from rule_engines import MB, Case, engine, layer, node, tensor

CAST_X, CAST_X16 = tensor("x", 1, 64, dtype="float32"), tensor("x16", 1, 64)
CAST_Y, CAST_Y32 = tensor("y", 1, 64), tensor("y32", 1, 64, dtype="float32")
CAST_CONV = layer("conv", "conv", 1.0, reads=[CAST_X16], writes=[CAST_Y])
CAST_AFTER = layer("add", "pointwise", 1.0, reads=[CAST_Y32], writes=[tensor("z", 1, 64, dtype="float32")])

CAST_FIRES = [
    Case(
        engine(
            layer("in", "reformat", 0.25, reads=[CAST_X], writes=[CAST_X16]),
            CAST_CONV,
            layer("within", "reformat", 0.5, op="Cast", reads=[CAST_Y], writes=[CAST_Y32]),
            CAST_AFTER,
        ),
        cost_ms=0.75,
        layers=("within", "in"),
        says=("2 casts, 1 at the engine's inputs",),
    )
]
CAST_QUIET = [
    Case(engine(CAST_CONV, layer("layout", "reformat", 0.5, reads=[CAST_Y], writes=[tensor("y2", 1, 64)]))),
    Case(engine(layer("folded away", "reformat", 0, reads=[CAST_X], writes=[CAST_X16]))),
]

NORM_CAST_X, NORM_CAST_X32 = tensor("x", 1, 64), tensor("x32", 1, 64, dtype="float32")
NORM_CAST_Y32, NORM_CAST_Y = tensor("y32", 1, 64, dtype="float32"), tensor("y", 1, 64)
NORM_CAST_CASTS = (
    layer("to float32", "reformat", 0.25, op="Cast", reads=[NORM_CAST_X], writes=[NORM_CAST_X32]),
    layer("to float16", "reformat", 0.5, op="Cast", reads=[NORM_CAST_Y32], writes=[NORM_CAST_Y]),
)
NORM_CAST_NORM = layer("norm", "norm", 1.0, reads=[NORM_CAST_X32], writes=[NORM_CAST_Y32], precision="float32")
NORM_CAST_MODULE = "down_blocks.0.resnets.0.norm1"

NORM_CAST_FIRES = [
    Case(
        engine(NORM_CAST_CASTS[0], NORM_CAST_NORM, NORM_CAST_CASTS[1]),
        cost_ms=0.75,
        layers=("to float16", "to float32"),
    ),
    Case(
        engine(NORM_CAST_CASTS[0].model_copy(update={"module": NORM_CAST_MODULE})), cost_ms=0.25, layers=("to float32",)
    ),
]
NORM_CAST_QUIET = [
    Case(
        engine(
            NORM_CAST_CASTS[0],
            layer("conv", "conv", 1.0, reads=[NORM_CAST_X32], writes=[NORM_CAST_Y32]),
            NORM_CAST_CASTS[1],
        )
    ),
    Case(engine(layer("fused", "norm", 1.0, reads=[NORM_CAST_X], writes=[NORM_CAST_Y]))),
]

LAYOUT_FIRST, LAYOUT_LAST = tensor("x", 1, 64, layout="linear"), tensor("y", 1, 64, layout="channels last")

LAYOUT_FIRES = [
    Case(
        engine(
            layer("r", "reformat", 0.25, reads=[LAYOUT_FIRST], writes=[LAYOUT_LAST]),
            layer("t", "reformat", 0.5, op="Transpose", reads=[tensor("a", 1, 64)], writes=[tensor("b", 64, 1)]),
        ),
        cost_ms=0.75,
        layers=("t", "r"),
        says=("2 layout changes", 'from "linear" to "channels last"'),
    )
]
LAYOUT_QUIET = [
    Case(engine(layer("cast", "reformat", 0.5, reads=[LAYOUT_FIRST], writes=[tensor("y", 1, 64, dtype="float32")]))),
    Case(engine(layer("no-op", "reformat", None, op="NoOp", reads=[LAYOUT_FIRST], writes=[LAYOUT_LAST]))),
    Case(engine(layer("conv", "conv", 0.5, reads=[LAYOUT_FIRST], writes=[LAYOUT_LAST]))),
]

COPY_INT = tensor("sizes", 4, dtype="int64")
COPY_NODES = (
    node("/mid_block/Concat", "Concat", "copy", "mid_block", 0, 8),
    node("/mid_block/Resize", "Resize", "copy", "mid_block", 0, 8),
    node("size", "Concat", "copy"),
)

COPY_FIRES = [
    Case(
        engine(
            layer("slice", "copy", 0.25, op="Slice"),
            layer("joined", "copy", 0.5, op="kgen", nodes=("/mid_block/Concat",)),
            layer("/mid_block/x_output_0 copy", "reformat", 0.125),
            layer("generated", "copy", 1.0, op="kgen", kernel="__myl_MoveConc_0x12"),
            nodes=COPY_NODES,
        ),
        cost_ms=1.875,
        layers=("generated", "joined", "slice", "/mid_block/x_output_0 copy"),
    )
]
COPY_QUIET = [
    Case(engine(layer("resize", "copy", 0.5, op="kgen", nodes=("/mid_block/Resize",)), nodes=COPY_NODES)),
    Case(engine(layer("sizes", "copy", 0.5, op="Concat", writes=[COPY_INT]))),
    Case(engine(layer("shape only", "copy", 0.5, op="kgen", kernel="__myl_Conc_0", nodes=("size",)), nodes=COPY_NODES)),
    Case(engine(layer("fused", "pointwise", 0.5, nodes=("/mid_block/Concat",)), nodes=COPY_NODES)),
    Case(engine(layer("a skip", "copy", 0.5, op="Concat", module="up_blocks.1"))),
]

SKIP_SKIP = {"module": "up_blocks.1", "bytes_moved": 20 * MB}

SKIP_FIRES = [
    Case(
        engine(
            layer("a", "copy", 0.25, op="Concat", **SKIP_SKIP),
            layer("/up_blocks.2/resnets.0/x_output_0 copy", "reformat", 0.5),
        ),
        cost_ms=0.75,
        layers=("/up_blocks.2/resnets.0/x_output_0 copy", "a"),
        says=("2 copies to join", "20 MB each run"),
    )
]
SKIP_QUIET = [
    Case(engine(layer("a", "copy", 0.25, op="Slice", **SKIP_SKIP))),
    Case(engine(layer("a", "copy", 0.25, op="Concat", module="mid_block"))),
    Case(engine(layer("fused", "norm", 0.25, op="Concat", **SKIP_SKIP))),
]

QDQ_HALF, QDQ_INT8 = tensor("x", 1, 64), tensor("x8", 1, 64, dtype="int8")
QDQ_FP8, QDQ_BOOL = tensor("x8", 1, 64, dtype="float8_e4m3fn"), tensor("b", 1, 64, dtype="bool")
QDQ_NODE = node("QuantizeLinear_1", "QuantizeLinear", "other")

QDQ_FIRES = [
    Case(
        engine(layer("q", "reformat", 0.25, reads=[QDQ_HALF], writes=[QDQ_INT8], attributes={"Origin": "QDQ"})),
        cost_ms=0.25,
        layers=("q",),
    ),
    Case(
        engine(layer("s", "pointwise", 0.5, op="Scale", reads=[QDQ_FP8], writes=[QDQ_HALF])), cost_ms=0.5, layers=("s",)
    ),
    Case(
        engine(layer("k", "pointwise", 0.5, op="kgen", nodes=("QuantizeLinear_1",)), nodes=(QDQ_NODE,)),
        cost_ms=0.5,
        layers=("k",),
    ),
]
QDQ_QUIET = [
    Case(engine(layer("c", "conv", 1.0, reads=[QDQ_HALF], writes=[QDQ_INT8]))),
    Case(engine(layer("r", "reformat", 1.0, reads=[QDQ_BOOL], writes=[QDQ_HALF]))),
    Case(engine(layer("s", "pointwise", 1.0, op="Scale", reads=[QDQ_HALF], writes=[tensor("y", 1, 64)]))),
]

REQUANT_X, REQUANT_Y = tensor("x", 1, 64, dtype="int8"), tensor("y", 1, 64)
REQUANT_Y8, REQUANT_Z = tensor("y8", 1, 64, dtype="int8"), tensor("z", 1, 64, dtype="int8")
REQUANT_CONV = layer("conv", "conv", 1.0, reads=[REQUANT_X], writes=[REQUANT_Y], precision="int8")
REQUANT_FUSED = layer("conv", "conv", 1.0, reads=[REQUANT_X], writes=[REQUANT_Z], precision="int8")
REQUANT_FLOAT = layer("conv", "conv", 1.0, reads=[tensor("x", 1, 64)], writes=[REQUANT_Y])
REQUANT_QUANTIZE = layer("q", "reformat", 0.25, reads=[REQUANT_Y], writes=[REQUANT_Y8], attributes={"Origin": "QDQ"})
REQUANT_LAYOUT = layer("r", "reformat", 0.1, reads=[REQUANT_Y], writes=[tensor("y2", 1, 64)])
REQUANT_BEHIND = layer("q", "pointwise", 0.25, op="Scale", reads=[tensor("y2", 1, 64)], writes=[REQUANT_Y8])

REQUANT_FIRES = [
    Case(
        engine(REQUANT_CONV, REQUANT_QUANTIZE, precision="int8"),
        cost_ms=0.25,
        layers=("q",),
        says=("1 layer to quantize again",),
    ),
    Case(engine(REQUANT_CONV, REQUANT_LAYOUT, REQUANT_BEHIND, precision="int8"), cost_ms=0.25, layers=("q",)),
]
REQUANT_QUIET = [
    Case(engine(REQUANT_FUSED, precision="int8")),
    Case(engine(REQUANT_FLOAT, REQUANT_QUANTIZE, precision="int8")),
]

FIRES = {
    "type_conversions": CAST_FIRES,
    "norm_casts": NORM_CAST_FIRES,
    "layout_reformats": LAYOUT_FIRES,
    "slice_concat_copies": COPY_FIRES,
    "skip_concats": SKIP_FIRES,
    "unfused_qdq": QDQ_FIRES,
    "requantized_outputs": REQUANT_FIRES,
}
QUIET = {
    "type_conversions": CAST_QUIET,
    "norm_casts": NORM_CAST_QUIET,
    "layout_reformats": LAYOUT_QUIET,
    "slice_concat_copies": COPY_QUIET,
    "skip_concats": SKIP_QUIET,
    "unfused_qdq": QDQ_QUIET,
    "requantized_outputs": REQUANT_QUIET,
}
