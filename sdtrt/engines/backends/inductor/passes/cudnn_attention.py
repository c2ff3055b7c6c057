"""Attention by cuDNN where it takes the shape, by measurement on an H200.

cuDNN was the fastest for every shape of SD and SDXL that libraries compute: self-attention took 0.60 to 0.92 of the
time of the flash kernel, which torch prefers (benchmarks/results/h200_kernels.json).
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

from sdtrt.engines.backends.inductor.graph_edits.attention_nodes import plain
from sdtrt.engines.backends.inductor.pass_context import Context
from sdtrt.engines.backends.inductor.trace import Graph
from sdtrt.graph.pass_result import Result

VERSION = 1
REQUIRES = ("gpu",)


def apply(graph: Graph, context: Context) -> Result[Graph]:
    """Give all attentions that suit it to cuDNN; returns how many."""
    import torch

    aten, changed = torch.ops.aten, 0
    for node, tensors in plain(graph):
        if not _suits(tensors):
            continue
        with graph.nodes.inserting_before(node):
            kernel = aten._scaled_dot_product_cudnn_attention.default
            both = graph.call(node, kernel, *node.args, None, False, 0.0, False, False, **node.kwargs)
            first = graph.call(node, operator.getitem, both, 0)
        graph.replace(node, first)
        changed += 1
    graph.finish()
    return Result(graph, changed)


def _suits(tensors: Sequence[Any]) -> bool:
    """Whether cuDNN on this card takes query, key and value of these shapes and types."""
    import torch
    from torch.backends.cuda import SDPAParams, can_use_cudnn_attention

    real = [torch.empty(t.transpose(1, 2).shape, dtype=t.dtype, device="cuda").transpose(1, 2) for t in tensors]
    params: Any = SDPAParams  # its stub has the fields but not the constructor
    return bool(can_use_cudnn_attention(params(*real, None, 0.0, False, False)))
