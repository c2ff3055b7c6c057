from __future__ import annotations

from rule_engines import GFLOP, MB, Case, engine, layer, node

BLOCK = "down_blocks.0.attentions.0.transformer_blocks.0"
PROMPT_NODES = tuple(
    node(name, "MatMul", "gemm", f"{BLOCK}.{name}", flops)
    for name, flops in (("attn2.to_k", GFLOP), ("attn2.to_v", GFLOP), ("attn2.to_q", 6 * GFLOP))
)

# The cases' U-Net runs 20 times for an image.
PROMPT_FIRES = [
    Case(
        engine(
            layer("k", "gemm", 1.0, nodes=("attn2.to_k",)),
            layer("q and v", "gemm", 0.7, nodes=("attn2.to_q", "attn2.to_v")),
            nodes=PROMPT_NODES,
        ),
        cost_ms=(1.0 + 0.1) * 19 / 20,
        layers=("k", "q and v"),
        says=("19 of 20 runs",),
    ),
    # A node that two layers name is half of either's: 0.5 of 6.5 GFLOP.
    Case(
        engine(
            layer("k", "gemm", 1.0, nodes=("attn2.to_k",)),
            layer("k and q", "gemm", 1.3, nodes=("attn2.to_k", "attn2.to_q")),
            nodes=PROMPT_NODES,
        ),
        cost_ms=(1.0 + 0.1) * 19 / 20,
        layers=("k and q", "k"),
    ),
    # Without an ONNX file the module that the reader found must do.
    Case(engine(layer("v", "gemm", 1.0, module=f"{BLOCK}.attn2.to_v")), cost_ms=0.95, layers=("v",)),
]
PROMPT_QUIET = [
    Case(engine(layer("q", "gemm", 1.0, nodes=("attn2.to_q",)), nodes=PROMPT_NODES)),
    Case(engine(layer("k", "gemm", 1.0, module=f"{BLOCK}.attn1.to_k"))),
    Case(engine(layer("runs once", "gemm", 1.0, module=f"{BLOCK}.attn2.to_k"), component="text_encoder")),
]

TIME_NODES = (
    node("silu", "Mul", "pointwise", "mid_block.resnets.0.nonlinearity", 0, 3 * MB),
    node("proj", "Gemm", "gemm", "mid_block.resnets.0.time_emb_proj", GFLOP, MB),
)
WITHOUT_WORK = tuple(each.model_copy(update={"flops": None}) for each in TIME_NODES)

TIME_FIRES = [
    Case(
        engine(
            layer("sin", "pointwise", 0.5, module="time_proj"),
            layer("linear", "gemm", 0.25, module="time_embedding.linear_1"),
            layer("silu and projection", "gemm", 1.0, nodes=("silu", "proj"), op="gemm"),
            nodes=TIME_NODES,
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
TIME_QUIET = [Case(engine(layer("conv", "conv", 1.0, module="mid_block.resnets.0.conv1")))]

FIRES = {"constant_cross_attention": PROMPT_FIRES, "time_embedding": TIME_FIRES}
QUIET = {"constant_cross_attention": PROMPT_QUIET, "time_embedding": TIME_QUIET}
