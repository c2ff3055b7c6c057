"""Runs graph passes over a traced graph, as `sdtrt.graph.optimize` does over an ONNX file.

A pass is a module of `passes/` with `VERSION`, part of the engine's key, `REQUIRES` (any of fp8, gpu, hopper) and
`apply(graph, context) -> Result`. A pass whose requirements are not met is recorded with the reason.
"""

from __future__ import annotations

from collections.abc import Sequence

from sdtrt import registry
from sdtrt.bundle.manifest import Change
from sdtrt.engines.backends.inductor.pass_context import Context
from sdtrt.engines.backends.inductor.trace import Graph
from sdtrt.errors import GraphError
from sdtrt.graph.pass_result import Result

PASSES = "sdtrt.engines.backends.inductor.passes"
DEFAULTS = (
    "fuse_linears", "cross_attention", "cudnn_attention", "vae_attention", "group_norm", "layer_norm", "upsample",
    "split_prompt", "geglu", "self_attention", "fp8", "fp8_conv", "conv_residual", "tanh_gelu",
)  # fmt: skip

# Boolean options and ONNX passes of former versions, by the word that replaced each.
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
    """Run `passes` in order; returns the step's graph and what each did."""
    changes = []
    for number, name in enumerate(passes, start=1):
        context.following = passes[number:]
        module = registry.load(PASSES, name, GraphError)
        before, reasons = len(graph.nodes.nodes), context.unmet(module.REQUIRES)
        result: Result[Graph] = Result(graph, 0, reasons) if reasons else module.apply(graph, context)
        graph = result.model
        notes = result.notes or (() if result.changed else ("no such layer",))
        changes.append(
            Change(
                name=name,
                version=module.VERSION,
                changed=result.changed,
                nodes_before=before,
                nodes_after=len(graph.nodes.nodes),
                notes=notes,
            )
        )
    return graph, tuple(changes)
