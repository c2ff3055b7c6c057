from __future__ import annotations

from rule_engines import GFLOP, MB, Case, engine, layer, node

NODES = (
    node("silu", "Mul", "pointwise", "mid_block.resnets.0.nonlinearity", 0, 3 * MB),
    node("proj", "Gemm", "gemm", "mid_block.resnets.0.time_emb_proj", GFLOP, MB),
)
WITHOUT_WORK = tuple(each.model_copy(update={"flops": None}) for each in NODES)

FIRES = [
    Case(
        engine(
            layer("sin", "pointwise", 0.5, module="time_proj"),
            layer("linear", "gemm", 0.25, module="time_embedding.linear_1"),
            layer("silu and projection", "gemm", 1.0, nodes=("silu", "proj"), op="gemm"),
            nodes=NODES,
        ),
        cost_ms=(0.5 + 0.25 + 1.0) * 0.95,
        layers=("silu and projection", "sin", "linear"),
        says=("3 layers",),
    ),
    # Without FLOPs: a quarter by bytes.
    Case(
        engine(layer("both", "other", 1.0, nodes=("silu", "proj"), op="kgen"), nodes=WITHOUT_WORK),
        cost_ms=0.25 * 0.95,
        layers=("both",),
    ),
]
QUIET = [Case(engine(layer("conv", "conv", 1.0, module="mid_block.resnets.0.conv1")))]
