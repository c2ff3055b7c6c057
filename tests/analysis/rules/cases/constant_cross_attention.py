from __future__ import annotations

from rule_engines import GFLOP, Case, engine, layer, node

BLOCK = "down_blocks.0.attentions.0.transformer_blocks.0"
NODES = tuple(
    node(name, "MatMul", "gemm", f"{BLOCK}.{name}", flops)
    for name, flops in (("attn2.to_k", GFLOP), ("attn2.to_v", GFLOP), ("attn2.to_q", 6 * GFLOP))
)

# The cases' U-Net runs 20 times for an image.
FIRES = [
    Case(
        engine(
            layer("k", "gemm", 1.0, nodes=("attn2.to_k",)),
            layer("q and v", "gemm", 0.7, nodes=("attn2.to_q", "attn2.to_v")),
            nodes=NODES,
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
            nodes=NODES,
        ),
        cost_ms=(1.0 + 0.1) * 19 / 20,
        layers=("k and q", "k"),
    ),
    # Without an ONNX file the module that the reader found must do.
    Case(engine(layer("v", "gemm", 1.0, module=f"{BLOCK}.attn2.to_v")), cost_ms=0.95, layers=("v",)),
]
QUIET = [
    Case(engine(layer("q", "gemm", 1.0, nodes=("attn2.to_q",)), nodes=NODES)),
    Case(engine(layer("k", "gemm", 1.0, module=f"{BLOCK}.attn1.to_k"))),
    Case(engine(layer("runs once", "gemm", 1.0, module=f"{BLOCK}.attn2.to_k"), component="text_encoder")),
]
