"""GroupNorm, the SiLU after it, and the bias and time embedding added before it, as one Triton kernel.

In a residual block only the norm reads the sum of a convolution, its bias and the time embedding: the kernel adds them
as it loads, so that the sum is never written.
"""

from typing import Any

from sdtrt.engines.backends.inductor.graph_edits.image_nodes import in_memory, own_bias
from sdtrt.engines.backends.inductor.pass_context import Context
from sdtrt.engines.backends.inductor.trace import Graph
from sdtrt.graph.run_passes import Result

VERSION = 1
REQUIRES = ("gpu",)


def apply(graph: Graph, context: Context) -> Result[Graph]:
    """Replace all GroupNorms over images."""
    import torch

    from sdtrt.engines.backends.inductor.kernels import group_norm  # noqa: F401  its import registers the operator

    aten, changed = torch.ops.aten, 0
    for node in graph.calls(aten.group_norm.default):
        if node.meta["val"].dim() != 4:
            continue
        (reader, *others) = node.users
        last = reader if not others and reader.target is aten.silu.default else node
        source, groups, weight, bias, eps = (*node.args, 1e-5)[:5]
        with graph.nodes.inserting_before(node):
            source, add = _added(graph, source)
            if source.target is not aten.conv2d.default or source.args[2] is not None:
                source = in_memory(graph, source, source.meta["val"])
            arguments = (source, add, weight, bias, groups, eps, last is reader)
            norm = graph.call(node, torch.ops.sdtrt.group_norm.default, *arguments)  # named like the norm
        graph.replace(last, norm)
        changed += 1
    graph.finish()
    return Result(graph, changed)


def _added(graph: Graph, source: Any) -> tuple[Any, Any]:
    """(tensor, vector per image and channel), whose sum `source` is, where nothing else reads the sum."""
    import torch

    aten, add = torch.ops.aten, None
    value = source.meta["val"]
    images, channels = value.shape[:2]
    if source.target is aten.add.Tensor and len(source.users) == 1 and not source.kwargs:
        left, right = source.args
        if getattr(right, "meta", {}).get("val") is not None and right.meta["val"].shape == (images, channels, 1, 1):
            add = graph.nodes.call_function(aten.reshape.default, (right, [images, channels]))
            source = left
    if (bias := own_bias(source)) is not None:
        source.update_arg(2, None)
        if add is None:
            add = graph.nodes.call_function(aten.expand.default, (bias, [images, channels]))
        else:
            add = graph.nodes.call_function(aten.add.Tensor, (add, bias))
    return source, add
