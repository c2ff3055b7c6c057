"""Runs graph passes over a traced graph, as `sdtrt.graph.optimize` does over an ONNX file.

A pass is a module of `passes/` with `VERSION`, part of the engine's key, `REQUIRES` (any of fp8, gpu, hopper) and
`apply(graph, context) -> Result`. A pass whose requirements are not met is recorded with the reason.
"""

from collections.abc import Sequence
from types import ModuleType

from sdtrt.bundle.manifest import Change
from sdtrt.engines.backends.inductor.pass_context import Context
from sdtrt.engines.backends.inductor.trace import Graph
from sdtrt.graph.run_passes import Result, run_passes

PASSES = "sdtrt.engines.backends.inductor.passes"
DEFAULTS = (
    "fuse_linears", "cross_attention", "cudnn_attention", "vae_attention", "group_norm", "layer_norm", "upsample",
    "split_prompt", "geglu", "self_attention", "fp8", "fp8_conv", "conv_residual", "tanh_gelu",
)  # fmt: skip

# The pass that each boolean option or pass name of former versions became.
RENAMED = {
    "prompt_once": "split_prompt",
    "short_attention": "cross_attention",
    "wide_attention": "vae_attention",
    "fp8_attention": "self_attention",
    "fp8_convolutions": "fp8_conv",
    "fused_gate": "geglu",
    "fast_gelu": "tanh_gelu",
    **{n: n for n in ("fuse_linears", "cudnn_attention", "group_norm", "layer_norm", "upsample", "conv_residual")},
}


def optimize(graph: Graph, passes: Sequence[str], context: Context) -> tuple[Graph, tuple[Change, ...]]:
    """Run `passes` in order; returns the graph of the step and what each pass changed.

    Raises:
        GraphError: a pass is unknown or failed.
    """

    def apply(module: ModuleType, graph: Graph, following: Sequence[str]) -> Result[Graph]:
        context.following = following
        if reasons := context.unmet(module.REQUIRES):
            return Result(graph, 0, reasons)
        result: Result[Graph] = module.apply(graph, context)
        return result if result.changed or result.notes else Result(result.model, 0, ("no such layer",))

    return run_passes(graph, PASSES, passes, apply, lambda g: len(g.nodes.nodes), context.component)
