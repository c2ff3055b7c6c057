"""Attention whose heads are wider than any fast kernel takes, as products and a softmax: a VAE's, of 512 channels.

What libraries have for it is slow: 4.2 ms for the 16,384 pixels of SDXL's VAE in bfloat16 on an H200, a sixth of the
decoder, where the products alone take about 1 ms. Scores are kept in float32, for some queries at a time: few need
little memory, many keep all multiprocessors busy (benchmarks/h200_kernels.py times both).
"""

from __future__ import annotations

from functools import partial
from math import prod, sqrt
from typing import TYPE_CHECKING, Any

from sdtrt.engines.backends.inductor.graph_edits import attention_nodes
from sdtrt.engines.backends.inductor.pass_context import Context
from sdtrt.engines.backends.inductor.trace import Graph
from sdtrt.graph.pass_result import Result

if TYPE_CHECKING:
    Node = Any  # of torch.fx, whose own types say too little of arguments

VERSION = 1
REQUIRES = ("gpu",)

WIDEST_OF_KERNELS = 256
SCORES = 2**25  # of one product: 128 MiB in float32


def apply(graph: Graph, context: Context) -> Result[Graph]:
    """Replace all that are wider; returns how many."""
    import torch

    changed = 0
    for node, (query, key, value) in attention_nodes.plain(graph):
        if query.shape[-1] <= WIDEST_OF_KERNELS or query.shape[:-2] != key.shape[:-2]:
            continue
        scale = node.kwargs.get("scale") or 1 / sqrt(query.shape[-1])
        with graph.nodes.inserting_before(node):
            made = _products(graph, node, (query, key, value), scale)
            back = graph.call(node, torch.ops.aten.reshape.default, made, list(node.meta["val"].shape))
        graph.replace(node, back)
        changed += 1
    graph.finish()
    return Result(graph, changed)


def _products(graph: Graph, node: Node, values: tuple[Any, ...], scale: float) -> Node:
    """(heads, queries, channels) of all images."""
    import torch

    aten, step = torch.ops.aten, partial(graph.call, node)
    heads, queries, keys = prod(values[0].shape[:-2]), values[0].shape[-2], values[1].shape[-2]
    query, key, value = (
        step(aten.reshape.default, a, [heads, *t.shape[-2:]]) for a, t in zip(node.args[:3], values, strict=True)
    )
    turned = step(aten.transpose.int, key, 1, 2)
    each = max(1, SCORES // (heads * keys))
    parts = []
    for start in range(0, queries, each):
        some = step(aten.slice.Tensor, query, 1, start, start + each)
        scores = step(aten.bmm.dtype, some, turned, torch.float32)  # (heads, some queries, keys)
        shares = step(aten._softmax.default, step(aten.mul.Tensor, scores, scale), -1, False)
        parts.append(step(aten.bmm.default, step(aten._to_copy.default, shares, dtype=values[0].dtype), value))
    return step(aten.cat.default, parts, 1) if len(parts) > 1 else parts[0]
