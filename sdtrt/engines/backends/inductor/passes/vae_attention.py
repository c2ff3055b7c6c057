"""Attention whose heads are wider than any fast kernel takes, as matmuls and a softmax: a VAE's, of 512 channels.

Libraries compute it slowly: 4.2 ms for the 16,384 pixels of SDXL's VAE in bfloat16 on an H200, a sixth of the decoder,
where the matmuls alone take about 1 ms. Scores are kept in float32, for some queries at a time: few need little memory,
many keep all multiprocessors busy (benchmarks/h200_kernels.py times both).
"""

from __future__ import annotations

from functools import partial
from math import prod, sqrt
from typing import TYPE_CHECKING

from sdtrt.engines.backends.inductor.graph_edits.attention_nodes import replace_plain
from sdtrt.engines.backends.inductor.pass_context import Context
from sdtrt.engines.backends.inductor.trace import Graph, Node
from sdtrt.graph.run_passes import Result

if TYPE_CHECKING:
    from torch import Tensor

VERSION = 1
REQUIRES = ("gpu",)

WIDEST_OF_KERNELS = 256
SCORES = 2**25  # of one matmul: 128 MiB in float32


def apply(graph: Graph, context: Context) -> Result[Graph]:
    """Replace all attentions with wider heads."""
    return Result(graph, replace_plain(graph, partial(_vae_attention, graph)))


def _vae_attention(graph: Graph, node: Node, *tensors: Tensor) -> Node | None:
    import torch

    (*batch, queries, size), (*key_batch, keys, _) = tensors[0].shape, tensors[1].shape
    if size <= WIDEST_OF_KERNELS or batch != key_batch:
        return None
    aten, step, heads = torch.ops.aten, partial(graph.call, node), prod(batch)
    scale = node.kwargs.get("scale") or 1 / sqrt(size)
    query, key, value = (
        step(aten.reshape.default, a, [heads, *t.shape[-2:]]) for a, t in zip(node.args, tensors, strict=True)
    )
    transposed = step(aten.transpose.int, key, 1, 2)
    count = max(1, SCORES // (heads * keys))
    outputs = []
    for start in range(0, queries, count):
        some = step(aten.slice.Tensor, query, 1, start, start + count)
        scores = step(aten.bmm.dtype, some, transposed, torch.float32)  # (heads, some queries, keys)
        weights = step(aten._softmax.default, step(aten.mul.Tensor, scores, scale), -1, False)
        outputs.append(step(aten.bmm.default, step(aten._to_copy.default, weights, dtype=tensors[0].dtype), value))
    output = step(aten.cat.default, outputs, 1) if len(outputs) > 1 else outputs[0]
    return step(aten.reshape.default, output, list(node.meta["val"].shape))
