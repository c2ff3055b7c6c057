"""LayerNorm and the residual sum in front of it by one hand-written operation."""

from __future__ import annotations

import operator
from typing import Any

from sdtrt.engines.backends.inductor.pass_context import Context
from sdtrt.engines.backends.inductor.trace import Graph, terms
from sdtrt.graph.pass_result import Result

VERSION = 1
REQUIRES = ("gpu",)


def apply(graph: Graph, context: Context) -> Result[Graph]:
    """Replace all that normalize the last axis in half precision; returns how many."""
    import torch

    from sdtrt.engines.backends.inductor.kernels.layer_norm import LONGEST_ROW, layer_norm

    del layer_norm  # importing it registered the operation
    aten, changed = torch.ops.aten, 0
    for node in graph.calls(aten.layer_norm.default):
        given: tuple[Any, ...] = node.args
        source, shape, weight, bias, eps, *_ = (*given, *_DEFAULTS[len(given) :])
        value = source.meta["val"]
        half = value.dtype in (torch.float16, torch.bfloat16)
        if weight is None or bias is None or len(shape) > 1 or shape[0] > LONGEST_ROW or not half:
            continue
        parts = terms(source) or (source, None)
        with graph.nodes.inserting_after(source):
            made = graph.nodes.call_function(
                torch.ops.sdtrt.layer_norm.default, (parts[0], None, parts[1], weight, bias, eps)
            )
        with graph.nodes.inserting_after(made):
            total, norm = (graph.nodes.call_function(operator.getitem, (made, i)) for i in (0, 1))
        made.meta = {**node.meta, "val": (value, node.meta["val"])}
        total.meta, norm.meta = dict(source.meta), dict(node.meta)
        node.replace_all_uses_with(norm)
        graph.nodes.erase_node(node)
        if parts[1] is not None:
            source.replace_all_uses_with(total, delete_user_cb=lambda user, made=made: user is not made)
        changed += 1
    graph.finish()
    return Result(graph, changed)


_DEFAULTS: tuple[Any, ...] = (None, None, None, None, 1e-5)
