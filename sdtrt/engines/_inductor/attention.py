"""Which kernel computes an attention: cuDNN's, which on an H200 was the fastest for every shape of SD and SDXL.

Self-attention took 0.54 to 0.68 and cross-attention to 77 tokens 0.59 to 0.82 of the flash kernel's time, which torch
prefers (benchmarks/results/h200_kernels.json).
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

from sdtrt.engines._inductor.capture import Graph


def run(graph: Graph) -> int:
    """Give all attentions in half precision that suit it to cuDNN; returns how many."""
    import torch

    aten, changed = torch.ops.aten, 0
    for node in list(graph.nodes.find_nodes(op="call_function", target=aten.scaled_dot_product_attention.default)):
        plain = len(node.args) == 3 and not set(node.kwargs) - {"scale"}
        if not (plain and _suits([a.meta["val"] for a in node.args])):
            continue
        with graph.nodes.inserting_before(node):
            both = graph.nodes.call_function(
                aten._scaled_dot_product_cudnn_attention.default,
                (*node.args, None, False, 0.0, False, False),
                dict(node.kwargs),
            )
            first = graph.nodes.call_function(operator.getitem, (both, 0))
        both.meta, first.meta = dict(node.meta), dict(node.meta)
        node.replace_all_uses_with(first)
        graph.nodes.erase_node(node)
        changed += 1
    graph.finish()
    return changed


def _suits(tensors: Sequence[Any]) -> bool:
    """Whether cuDNN on this card takes query, key and value of these shapes and types."""
    import torch
    from torch.backends.cuda import SDPAParams, can_use_cudnn_attention

    real = [torch.empty(t.transpose(1, 2).shape, dtype=t.dtype, device="cuda").transpose(1, 2) for t in tensors]
    params: Any = SDPAParams  # its stub has the fields but not the constructor
    return bool(can_use_cudnn_attention(params(*real, None, 0.0, False, False)))
