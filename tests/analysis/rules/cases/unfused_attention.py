from __future__ import annotations

from rule_engines import GFLOP, MB, TENSOR, Case, engine, layer, node

ATTN = "mid_block.attentions.0.transformer_blocks.0.attn1"
# Queries, keys, values and the result are 5 MB each, the scores 100 MB.
NODES = (
    node("qk", "MatMul", "attention", ATTN, 3 * GFLOP, 110 * MB),
    node("scale", "Mul", "attention", ATTN, 0, 200 * MB),
    node("softmax", "Softmax", "attention", ATTN, 0, 200 * MB),
    node("pv", "MatMul", "attention", ATTN, 3 * GFLOP, 110 * MB),
)
WHOLE = (node("whole", "Attention", "attention", ATTN, 6 * GFLOP, 20 * MB),)
SPLIT = (
    layer("first", "gemm", 0.5, kernel=TENSOR, nodes=("qk",)),
    layer("middle", "norm", 0.75, op="kgen", kernel="__myl_MaxrSubExpSumDivMul_0x12", nodes=("scale", "softmax")),
    layer("second", "gemm", 0.25, kernel=TENSOR, nodes=("pv",)),
)
ONE = layer("fused", "attention", 0.25, op="kgen", nodes=("qk", "scale", "softmax", "pv"))
MHA = layer("fused", "attention", 0.25, op="kgen", kernel="_gemm_mha_v2_0x12", nodes=("softmax",))
CAST = layer("cast", "reformat", 0.25, op="kgen", nodes=("whole",))


def parts(number):
    return [layer(f"p{i}", "attention", 0.25, op="kgen", nodes=("whole",)) for i in range(number)]


FIRES = [
    # 6 GFLOP take 0.06 ms, 20 MB 0.02 ms.
    Case(
        engine(*SPLIT, nodes=NODES),
        cost_ms=1.5 - 0.06,
        layers=("middle", "first", "second"),
        says=("1 attention in separate kernels, 100 MB of scores", ATTN),
    ),
    # No peak rate for this type: all but the products.
    Case(
        engine(*(part.model_copy(update={"precision": "float64"}) for part in SPLIT), nodes=NODES),
        cost_ms=0.75,
        layers=("middle", "first", "second"),
    ),
    Case(engine(*parts(3), nodes=WHOLE), cost_ms=0, layers=("p0", "p1", "p2")),
]
QUIET = [
    Case(engine(ONE, nodes=NODES)),
    Case(engine(MHA, layer("scale", "pointwise", 0.25, nodes=("scale",)), nodes=NODES)),
    Case(engine(*parts(1), CAST, nodes=WHOLE)),
    Case(engine(*SPLIT)),
]
