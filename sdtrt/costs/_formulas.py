"""FLOPs and bytes of one ONNX node at concrete shapes.

FLOPs, a multiply-add being two:

- Conv: 2 x output elements x (input channels / groups) x kernel area, and one per output element for a bias;
  ConvTranspose: the same for each input element. MatMul, Gemm: 2 x M x N x K for each matrix of the batch, and one per
  element for Gemm's C. These are the sums that the ONNX operator documents write out, and what
  `torch.utils.flop_counter` counts (without biases).
- Attention: 2 x B x H x Lq x Lk x D each for QK and PV; a mask saves nothing, as in `torch.utils.flop_counter`.
- Norms and pointwise operators: `PER_ELEMENT`, else 1, for each element of the larger of first input and output. The
  figures count the operations of the operator's definition in the ONNX documents: Sigmoid, 1 / (1 + exp(-x)), is 4.
- Copies, casts, transposes, shapes: 0.

Bytes moved: each distinct input and output once, at its own type, as if nothing were fused or cached; an operator that
selects elements reads as many as it writes, not the whole table. Views (Reshape and the like) move nothing.

A node that depends on weights and constants alone, or only computes shapes, costs nothing: engines compute it once or
on the host. `sdtrt.costs.graph_costs` decides that, and which node a weight counts for.
"""

from collections.abc import Callable, Mapping
from math import prod

import onnx

from sdtrt.costs._shapes import Fact
from sdtrt.errors import GraphError
from sdtrt.plan.layers import Kind
from sdtrt.plan.op_kinds import kind_of

PER_ELEMENT = {
    # mean 1; variance 3; subtract and divide 2; scale and shift 2
    **dict.fromkeys(("LayerNormalization", "GroupNormalization", "InstanceNormalization"), 8),
    "RMSNormalization": 4,  # square, sum, divide, scale
    "BatchNormalization": 2,  # scale and shift: the statistics are constants
    "Softmax": 5,  # maximum, subtract, exp, sum, divide
    "Sigmoid": 4,
    "Swish": 5,
    "Gelu": 5,  # 0.5 x (1 + erf(x / sqrt 2))
}
FREE: frozenset[Kind] = frozenset({"reformat", "copy", "shape"})
_SELECTS = frozenset({"Gather", "GatherND", "GatherElements", "Slice", "Split"})
# Contractions and control flow without a formula here: one operation per element would be wrong.
_WITHOUT_FORMULA = frozenset(
    {"ConvInteger", "DeformConv", "Einsum", "MatMulInteger", "QLinearConv", "QLinearMatMul"}
    | {"DFT", "Det", "GRU", "If", "LSTM", "Loop", "RNN", "STFT", "Scan"}
)


def is_view(op: str) -> bool:
    """Whether the operator only renames or reshapes."""
    return op == "Identity" or kind_of(op) == "shape"


def flops(node: onnx.NodeProto, facts: Mapping[str, Fact]) -> int:
    """Operations of one node; GraphError for an operator without a formula."""
    if node.op_type in _WITHOUT_FORMULA:
        raise GraphError(f"the cost of the node {node.name} is not known", slug="cost-unknown", received=node.op_type)
    if formula := _FORMULAS.get(node.op_type):
        return formula(node, facts)
    if kind_of(node.op_type) in FREE:
        return 0
    elements = max(facts[name].elements for name in (*node.input[:1], node.output[0]))
    return PER_ELEMENT.get(node.op_type, 1) * elements


def _conv(node: onnx.NodeProto, facts: Mapping[str, Fact]) -> int:
    data, weight = (facts[name] for name in node.input[:2])
    out = facts[node.output[0]].elements
    reached = data.elements if node.op_type == "ConvTranspose" else out
    return 2 * reached * prod(weight.shape[1:]) + (out if any(node.input[2:]) else 0)


def _matmul(node: onnx.NodeProto, facts: Mapping[str, Fact]) -> int:
    transposed = any(a.name == "transA" and a.i for a in node.attribute)
    summed = facts[node.input[0]].shape[0 if transposed else -1]
    return facts[node.output[0]].elements * (2 * summed + any(node.input[2:]))


def _attention(node: onnx.NodeProto, facts: Mapping[str, Fact]) -> int:
    query, key = (facts[name] for name in node.input[:2])
    # The fifth input of MultiHeadAttention is a mask; `_shapes` refuses one with a past.
    past = [facts[name].shape[-2] for name in node.input[4:5] if name and node.op_type == "Attention"]
    return 2 * (key.shape[-2] + sum(past)) * (query.elements + facts[node.output[0]].elements)


_FORMULAS: dict[str, Callable[[onnx.NodeProto, Mapping[str, Fact]], int]] = {
    "Conv": _conv,
    "ConvTranspose": _conv,
    "MatMul": _matmul,
    "Gemm": _matmul,
    "Attention": _attention,
    "MultiHeadAttention": _attention,
}


def bytes_moved(node: onnx.NodeProto, facts: Mapping[str, Fact]) -> int:
    """Bytes read and written by one node on its own."""
    written = sum(facts[name].nbytes for name in node.output if name)
    inputs = dict.fromkeys(name for name in node.input if name)
    if node.op_type in _SELECTS:
        return 2 * written + sum(facts[name].nbytes for name in inputs if name != node.input[0])
    return written + sum(facts[name].nbytes for name in inputs)
