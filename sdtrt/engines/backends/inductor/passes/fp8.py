"""Linear layers in FP8 (E4M3): the input rounded with one calibrated scale, the weight with one scale.

The rounding is plain arithmetic on the graph, so that the compiler writes it into whatever makes the input: a norm, a
GELU. The product accumulates in float32 and comes out in half precision.

FP8 has an exponent: a small channel of the weight is as exact as a large one, until it is a thousandth of the largest.
One scale rounded the trained layers of the embedded model as well as one per channel did (0.99 to 1.10 of the error).
cuBLAS takes either, and on an H200 a single one is faster by up to a third where rows are few, and a column of equal
ones where they are many (benchmarks/results/h200_kernels.json).
"""

from __future__ import annotations

import operator
from functools import partial
from math import prod
from typing import TYPE_CHECKING, Any

from sdtrt.engines.backends.inductor.graph_edits.fp8_linears import calibrated, rows_of
from sdtrt.engines.backends.inductor.graph_edits.fp8_quantize import LARGEST, constant, device_of, round_matrix
from sdtrt.engines.backends.inductor.pass_context import Context
from sdtrt.engines.backends.inductor.trace import Graph
from sdtrt.graph.pass_result import Result

if TYPE_CHECKING:
    Node = Any  # of torch.fx, whose own types say too little of arguments

VERSION = 1
REQUIRES = ("fp8",)


FEW_ROWS = 8192


def apply(graph: Graph, context: Context) -> Result[Graph]:
    """Round the layers that were calibrated; returns how many."""
    import torch

    changed = 0
    seen: dict[tuple[str, float], Node] = {}
    for node in list(graph.nodes.find_nodes(op="call_function", target=torch.ops.aten.linear.default)):
        found = calibrated(graph, node, context.ranges)
        if found is None:
            continue
        source, scale = node.args[0], found / LARGEST
        with graph.nodes.inserting_before(node):
            if (source.name, scale) not in seen:
                seen[source.name, scale] = rows_of(graph, source, scale)
            made = _product(graph, node, seen[source.name, scale], scale)
        graph.replace(node, made)
        changed += 1
    graph.finish()
    return Result(graph, changed)


def _product(graph: Graph, node: Node, source: Node, scale: float) -> Node:
    import torch

    aten, step = torch.ops.aten, partial(graph.call, node)
    value, name = node.meta["val"], node.args[1].name
    bias = node.args[2] if len(node.args) > 2 else None
    rows, device = prod(value.shape[:-1]), device_of(graph)
    matrix, unit = round_matrix(graph.weights[name])
    turned = step(aten.t.default, constant(graph, f"{name}_fp8", matrix))
    left, right = torch.tensor(scale, device=device), unit
    if rows > FEW_ROWS:
        left, right = left.repeat(rows, 1), right.repeat(1, len(matrix))
    scales = (constant(graph, f"{name}_{what}_{rows}", t) for what, t in (("input", left), ("unit", right)))
    product = step(aten._scaled_mm.default, source, turned, *scales, None, None, value.dtype, True)
    made = step(aten.reshape.default, product, list(value.shape))
    if bias is not None and not (rows <= FEW_ROWS and _leave_bias_to_norm(graph, node, made, bias)):
        product.update_arg(4, bias)
    return made


def _leave_bias_to_norm(graph: Graph, node: Node, product: Node, shift: Node) -> bool:
    """Leave a bias to the norm that reads a product, if one does: `product` takes the place of `node` there.

    Others that read `node` read the norm's sum.
    """
    made = next((u for u in node.users if str(u.target) == "sdtrt.layer_norm.default" and u.args[0] is node), None)
    if made is None or made.args[1] is not None or made.args[2] is node:
        return False
    made.args = (product, shift, *made.args[2:])
    if node.users:
        with graph.nodes.inserting_after(made):
            total = graph.nodes.call_function(operator.getitem, (made, 0))
        total.meta = dict(node.meta)
        node.replace_all_uses_with(total)
    return True
