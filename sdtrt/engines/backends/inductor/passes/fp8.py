"""Linear layers in FP8 (E4M3): the input has one calibrated scale, the weight has one scale.

The quantization is plain arithmetic on the graph, which the compiler fuses into the producer of the input: a norm, a
GELU. The matmul accumulates in float32 and its result is half precision.

FP8 has an exponent: a small channel of the weight is as exact as a large one, until it is a thousandth of the largest.
One scale quantized the trained layers of the embedded model as well as one per channel did (0.99 to 1.10 of the error).
cuBLAS takes either, and on an H200 a single one is faster by up to a third where rows are few, and a column of equal
ones where they are many (benchmarks/results/h200_kernels.json).
"""

import operator
from functools import partial
from math import prod

from sdtrt.engines.backends.inductor.graph_edits.fp8_linears import calibrated_amax, quantized_rows
from sdtrt.engines.backends.inductor.graph_edits.fp8_quantize import LARGEST, round_matrix
from sdtrt.engines.backends.inductor.pass_context import Context
from sdtrt.engines.backends.inductor.trace import Graph, Node
from sdtrt.graph.run_passes import Result

VERSION = 1
REQUIRES = ("fp8",)

FEW_ROWS = 8192  # up to here one scale is faster than a column of equal ones


def apply(graph: Graph, context: Context) -> Result[Graph]:
    """Quantize the layers that were calibrated; layers with the same input and scale share the quantized input."""
    import torch

    rows: dict[tuple[str, float], Node] = {}

    def quantize(node: Node) -> Node | None:
        if (amax := calibrated_amax(graph, node, context.ranges)) is None:
            return None
        source, scale = node.args[0], amax / LARGEST
        if (source.name, scale) not in rows:
            rows[source.name, scale] = quantized_rows(graph, source, scale)
        return _scaled_matmul(graph, node, rows[source.name, scale], scale)

    return Result(graph, graph.replace_calls(torch.ops.aten.linear.default, quantize))


def _scaled_matmul(graph: Graph, node: Node, source: Node, scale: float) -> Node:
    import torch

    aten, step = torch.ops.aten, partial(graph.call, node)
    value, name = node.meta["val"], node.args[1].name
    bias = node.args[2] if len(node.args) > 2 else None
    rows = prod(value.shape[:-1])
    matrix, weight_scale = round_matrix(graph.weights[name])
    transposed = step(aten.t.default, graph.constant(f"{name}_fp8", matrix))
    input_scale = torch.tensor(scale, device=weight_scale.device)
    if rows > FEW_ROWS:
        input_scale, weight_scale = input_scale.repeat(rows, 1), weight_scale.repeat(1, len(matrix))
    scales = (
        graph.constant(f"{name}_{what}_{rows}", t) for what, t in (("input", input_scale), ("unit", weight_scale))
    )
    matmul = step(aten._scaled_mm.default, source, transposed, *scales, None, None, value.dtype, True)
    output = step(aten.reshape.default, matmul, list(value.shape))
    if bias is not None and not (rows <= FEW_ROWS and _leave_bias_to_norm(graph, node, output, bias)):
        matmul.update_arg(4, bias)
    return output


def _leave_bias_to_norm(graph: Graph, node: Node, output: Node, bias: Node) -> bool:
    """Let the LayerNorm kernel that reads `node`, if there is one, read `output` and add the bias.

    Other readers of `node` read the sum that the norm writes. Returns whether there is such a norm.
    """
    norm = next((u for u in node.users if str(u.target) == "sdtrt.layer_norm.default" and u.args[0] is node), None)
    if norm is None or norm.args[1] is not None or norm.args[2] is node:
        return False
    norm.args = (output, bias, *norm.args[2:])
    if node.users:
        with graph.nodes.inserting_after(norm):
            total = graph.nodes.call_function(operator.getitem, (norm, 0))
        total.meta = dict(node.meta)
        node.replace_all_uses_with(total)
    return True
