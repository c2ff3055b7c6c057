"""Attention by cuDNN where it takes the shape, by measurement on an H200.

cuDNN was the fastest for every shape of SD and SDXL that libraries compute: self-attention took 0.60 to 0.92 of the
time of the flash kernel, which torch prefers (benchmarks/results/h200_kernels.json).
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from sdtrt.engines.backends.inductor.graph_edits.attention_nodes import replace_plain
from sdtrt.engines.backends.inductor.pass_context import Context
from sdtrt.engines.backends.inductor.trace import Graph, Node
from sdtrt.graph.run_passes import Result

if TYPE_CHECKING:
    from torch import Tensor

VERSION = 1
REQUIRES = ("gpu",)


def apply(graph: Graph, context: Context) -> Result[Graph]:
    """Give all attentions that suit it to cuDNN."""
    return Result(graph, replace_plain(graph, partial(_cudnn_attention, graph)))


def _cudnn_attention(graph: Graph, node: Node, *tensors: Tensor) -> Node | None:
    import torch

    if not _suits(tensors):
        return None
    kernel = torch.ops.aten._scaled_dot_product_cudnn_attention.default
    outputs = graph.call(node, kernel, *node.args, None, False, 0.0, False, False, **node.kwargs)
    return graph.call(node, operator.getitem, outputs, 0)


def _suits(tensors: Sequence[Tensor]) -> bool:
    """Whether cuDNN on this card takes query, key and value of these shapes and types."""
    import torch
    from torch.backends.cuda import SDPAParams, can_use_cudnn_attention

    real = [torch.empty(t.transpose(1, 2).shape, dtype=t.dtype, device="cuda").transpose(1, 2) for t in tensors]
    params: Any = SDPAParams  # its stub has the fields but not the constructor
    return bool(can_use_cudnn_attention(params(*real, None, 0.0, False, False)))
