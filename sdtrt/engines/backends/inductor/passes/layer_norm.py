"""LayerNorm and the residual sum before it as one Triton kernel."""

import operator
from typing import Any

from sdtrt.engines.backends.inductor.pass_context import Context
from sdtrt.engines.backends.inductor.trace import Graph, terms
from sdtrt.graph.run_passes import Result

VERSION = 1
REQUIRES = ("gpu",)


def apply(graph: Graph, context: Context) -> Result[Graph]:
    """Replace all LayerNorms over the last axis in half precision."""
    import torch

    from sdtrt.engines.backends.inductor.kernels.layer_norm import LONGEST_ROW

    aten, changed = torch.ops.aten, 0
    for node in graph.calls(aten.layer_norm.default):
        arguments: tuple[Any, ...] = node.args
        source, shape, weight, bias, eps, *_ = (*arguments, *_DEFAULTS[len(arguments) :])
        value = source.meta["val"]
        half = value.dtype in (torch.float16, torch.bfloat16)
        if weight is None or bias is None or len(shape) > 1 or shape[0] > LONGEST_ROW or not half:
            continue
        parts = terms(source) or (source, None)
        with graph.nodes.inserting_after(source):
            both = graph.nodes.call_function(
                torch.ops.sdtrt.layer_norm.default, (parts[0], None, parts[1], weight, bias, eps)
            )
        with graph.nodes.inserting_after(both):
            total, norm = (graph.nodes.call_function(operator.getitem, (both, i)) for i in (0, 1))
        both.meta = {**node.meta, "val": (value, node.meta["val"])}
        total.meta, norm.meta = dict(source.meta), dict(node.meta)
        node.replace_all_uses_with(norm)
        graph.nodes.erase_node(node)
        if parts[1] is not None:
            source.replace_all_uses_with(total, delete_user_cb=lambda user, both=both: user is not both)
        changed += 1
    graph.finish()
    return Result(graph, changed)


_DEFAULTS: tuple[Any, ...] = (None, None, None, None, 1e-5)
