"""Upsampling by two in one Triton kernel, which quantizes its result for an FP8 convolution that reads it."""

from functools import partial

from sdtrt.engines.backends.inductor.graph_edits.image_nodes import in_memory
from sdtrt.engines.backends.inductor.pass_context import Context
from sdtrt.engines.backends.inductor.trace import Graph, Node
from sdtrt.graph.run_passes import Result

VERSION = 1
REQUIRES = ("gpu",)


def apply(graph: Graph, context: Context) -> Result[Graph]:
    """Replace every upsampling that doubles both sides of an image in half precision."""
    import torch

    from sdtrt.engines.backends.inductor.kernels import upsample  # noqa: F401  its import registers the operator

    return Result(graph, graph.replace_calls(torch.ops.aten.upsample_nearest2d.vec, partial(_upsample, graph)))


def _upsample(graph: Graph, node: Node) -> Node | None:
    import torch

    source = node.args[0]
    before, after = source.meta["val"], node.meta["val"]
    half = before.dtype in (torch.float16, torch.bfloat16)
    if tuple(after.shape[2:]) != tuple(2 * side for side in before.shape[2:]) or not half:
        return None
    return graph.call(node, torch.ops.sdtrt.upsample.default, in_memory(graph, source, before))
