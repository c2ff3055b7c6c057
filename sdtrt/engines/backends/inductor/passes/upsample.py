"""Upsampling by two by one hand-written operation, which rounds for an FP8 convolution behind it."""

from __future__ import annotations

from sdtrt.engines.backends.inductor.graph_edits.image_nodes import in_memory
from sdtrt.engines.backends.inductor.pass_context import Context
from sdtrt.engines.backends.inductor.trace import Graph
from sdtrt.graph.pass_result import Result

VERSION = 1
REQUIRES = ("gpu",)


def apply(graph: Graph, context: Context) -> Result[Graph]:
    """Replace all that double both sides of an image in half precision; returns how many."""
    import torch

    from sdtrt.engines.backends.inductor.kernels.upsample import upsample

    del upsample  # importing it registered the operation
    changed = 0
    for node in list(graph.nodes.find_nodes(op="call_function", target=torch.ops.aten.upsample_nearest2d.vec)):
        source = node.args[0]
        before, after = source.meta["val"], node.meta["val"]
        half = before.dtype in (torch.float16, torch.bfloat16)
        if tuple(after.shape[2:]) != tuple(2 * side for side in before.shape[2:]) or not half:
            continue
        with graph.nodes.inserting_before(node):
            made = graph.call(node, torch.ops.sdtrt.upsample.default, in_memory(graph, source, before))
        graph.replace(node, made)
        changed += 1
    graph.finish()
    return Result(graph, changed)
