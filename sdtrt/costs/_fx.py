"""fx_costs(): FLOPs and bytes of each node of a traced graph of torch, by the formulas of `graph_costs`.

Operators of torch are named as the ONNX operators that do the same, so that kinds, rules and reports need one
vocabulary. A view moves nothing; an operator without a formula has no cost, and a note lists it. The formulas of
`torch.utils.flop_counter` do not replace these: they know no bias, no norm and no kernel of `sdtrt::`, and count
`linear` and `conv2d` only after decomposition. Where both have a formula, a test compares them.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping
from math import prod
from typing import TYPE_CHECKING, Any

from sdtrt.costs._formulas import FREE, PER_ELEMENT
from sdtrt.costs._graph import GraphCosts
from sdtrt.plan.layers import NodeCost, TensorInfo
from sdtrt.plan.op_kinds import kind_of

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    Node = Any  # of torch.fx, whose own types say too little of arguments

_NAMES: dict[str, str] = {
    "Gemm": "linear addmm gated",
    "MatMul": "mm bmm matmul _scaled_mm baddbmm",
    "Conv": "conv2d convolution conv3x3",
    "Attention": "scaled_dot_product_attention _scaled_dot_product_cudnn_attention "
    "_scaled_dot_product_flash_attention _scaled_dot_product_efficient_attention short_attention self_attention",
    "GroupNormalization": "group_norm native_group_norm",
    "LayerNormalization": "layer_norm native_layer_norm",
    "Softmax": "softmax _softmax",
    "Swish": "silu",
    "Gelu": "gelu",
    "Sigmoid": "sigmoid",
    **{name.capitalize(): name for name in ("add", "sub", "mul", "div", "exp", "sin", "cos", "tanh", "erf", "sqrt")},
    **{name.capitalize(): name for name in ("pow", "neg", "abs", "relu", "log", "where")},
    "Reciprocal": "reciprocal rsqrt",
    "Clip": "clamp clamp_min clamp_max",
    "Less": "le lt",
    "Greater": "ge gt",
    "Equal": "eq ne",
    "ReduceMean": "mean",
    "ReduceSum": "sum argmax amax",
    "And": "logical_and bitwise_and",
    "Not": "logical_not bitwise_not",
    "Concat": "cat concat stack",
    "Split": "chunk split split_with_sizes",
    "Slice": "slice select narrow",
    "Gather": "embedding index index_select gather",
    "Resize": "upsample_nearest2d upsample",
    "Expand": "expand repeat",
    "Pad": "pad constant_pad_nd",
    "Cast": "to _to_copy type_as",
    "Transpose": "transpose permute t movedim",
    "Reshape": "view reshape flatten unflatten _unsafe_view",
    "Unsqueeze": "unsqueeze",
    "Squeeze": "squeeze",
    "Range": "arange full zeros ones scalar_tensor empty full_like zeros_like ones_like",
    "Identity": "dropout alias contiguous clone detach lift_fresh_copy getitem _assert_tensor_metadata "
    "inductor_force_stride_order",
}
_OPS = {aten: op for op, names in _NAMES.items() for aten in names.split()}
# Indices of the arguments that are added to the result, such as a bias.
_ADDEND_ARGUMENTS = {
    "linear": (2,),
    "conv2d": (2,),
    "convolution": (2,),
    "_scaled_mm": (4,),
    "gated": (4,),
    "conv3x3": (4, 6),
}
_VIEWS = frozenset({"Reshape", "Transpose", "Unsqueeze", "Squeeze", "Split", "Slice", "Expand", "Range", "Identity"})
_INNER = "inner"  # the wrappers of `models` keep the checkpoint's module under this name


def fx_costs(module: torch.fx.GraphModule, inputs: Mapping[str, Tensor], weights: frozenset[str]) -> GraphCosts:
    """Costs of the nodes of the flat graph `module`.

    `inputs` has a tensor, real or fake, for each placeholder by its name; `weights` names those that are weights.
    """
    values = _values(module, inputs)
    nodes, reads = {}, {}
    weight_of = {n: n for n in weights}  # of a weight itself, and of each view of one
    unread_bytes = {n: _bytes(values[n]) for n in weights}  # of a weight: its first reader has them
    for node in (n for n in module.graph.nodes if n.op == "call_function"):
        sources = [s.name for s in node.all_input_nodes]
        op = _op(node)
        weight_bytes = 0
        if op not in _VIEWS:
            for source in filter(weight_of.__contains__, sources):
                read = min(_bytes(values[source]), unread_bytes[weight_of[source]])
                unread_bytes[weight_of[source]] -= read
                weight_bytes += read
        elif op != "Range" and len(sources) == 1 and sources[0] in weight_of:
            weight_of[node.name] = weight_of[sources[0]]
        nodes[node.name] = NodeCost(
            name=node.name,
            op=op,
            kind=kind_of(op),
            module=_module(node),
            flops=_flops(op, node, values),
            bytes_moved=_bytes_moved(op, node, values),
            weight_bytes=weight_bytes,
        )
        reads[node.name] = tuple(n for n in sources if n not in weight_of)
    tensors = {n: _info(n, v) for n, v in values.items() if n not in weights}
    (output,) = module.graph.find_nodes(op="output")
    return GraphCosts(
        nodes=nodes,
        tensors=tensors,
        reads=reads,
        writes={n: (n,) for n in nodes},
        outputs=frozenset(n.name for n in output.all_input_nodes),
        notes=_notes([c.op for c in nodes.values() if c.flops is None]),
    )


def _values(module: torch.fx.GraphModule, inputs: Mapping[str, Tensor]) -> dict[str, Any]:
    """Fake tensors that the nodes return: shapes and types without computing."""
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode

    values: dict[str, Any] = {}

    class Recorder(torch.fx.Interpreter):
        def run_node(self, n: Node) -> Any:
            values[n.name] = super().run_node(n)
            return values[n.name]

    with FakeTensorMode(allow_non_fake_inputs=True) as mode, torch.no_grad():
        names = [n.name for n in module.graph.find_nodes(op="placeholder")]
        Recorder(module).run(*[mode.from_tensor(inputs[n]) for n in names])
    return values


def _op(node: Node) -> str:
    if node.target is operator.getitem:
        return "Identity"
    return _OPS.get(_name(node), _name(node))


def _name(node: Node) -> str:
    return str(getattr(getattr(node.target, "overloadpacket", None), "__name__", node.target))


def _bytes_moved(op: str, node: Node, values: Mapping[str, Any]) -> int:
    """Bytes that the node reads and writes; Gather reads as many as it writes."""
    if op in _VIEWS:
        return 0
    written = _bytes(values[node.name])
    return written + (written if op == "Gather" else sum(_bytes(values[s.name]) for s in node.all_input_nodes))


def _flops(op: str, node: Node, values: Mapping[str, Any]) -> int | None:
    kind = kind_of(op)
    if op in _VIEWS or kind in FREE:
        return 0
    operands: list[Any] = [values[a.name] if hasattr(a, "name") else None for a in node.args]
    elements = int(_first(values[node.name]).numel())
    if op == "Conv":
        return elements * int(2 * prod(operands[1].shape[1:]) + _addends(node, operands))
    if op == "Attention":
        query, key = operands[:2]
        if _name(node) == "self_attention":  # queries and keys lie side by side; each image has its own
            return int(4 * query.shape[0] // node.args[4] * elements)
        return int(2 * key.shape[-2] * (query.numel() + elements))
    if kind == "gemm":
        return elements * _per_matmul_element(node, operands)
    if kind not in ("norm", "pointwise"):
        return None
    largest = max(elements, *(int(o.numel()) for o in operands[:1] if hasattr(o, "numel")), 0)
    per_element = PER_ELEMENT.get(op, 1)
    if str(node.target) == "sdtrt.group_norm.default":
        per_element += (operands[1] is not None) + PER_ELEMENT["Swish"] * bool(node.args[6])
    if str(node.target) == "sdtrt.layer_norm.default":
        per_element += sum(o is not None for o in operands[1:3])
    return largest * per_element


def _per_matmul_element(node: Node, operands: list[Any]) -> int:
    """FLOPs of one element of a matmul's result: the summed dimension, and a bias."""
    name = _name(node)
    if name == "addmm":
        return int(2 * operands[1].shape[-1] + 1)
    each = int(2 * operands[0].shape[-1] + _addends(node, operands))
    # Two halves, the second through GELU, and their product.
    return 2 * each + PER_ELEMENT["Gelu"] + 1 if name == "gated" else each


def _addends(node: Node, operands: list[Any]) -> int:
    """How many tensors a matmul or convolution adds to its result."""
    return sum(len(operands) > i and operands[i] is not None for i in _ADDEND_ARGUMENTS.get(_name(node), ()))


def _module(node: Node) -> str:
    """The diffusers module that the node was traced in."""
    stack = node.meta.get("nn_module_stack") or {}
    path = str(list(stack.values())[-1][0]) if stack else ""
    return path.removeprefix(_INNER).lstrip(".") or "(top)"


def _first(value: Any) -> Any:
    return value[0] if isinstance(value, tuple | list) else value


def _bytes(value: Any) -> int:
    if isinstance(value, tuple | list):
        return sum(_bytes(v) for v in value)
    return value.numel() * value.element_size() if hasattr(value, "numel") else 0


def _info(name: str, value: Any) -> TensorInfo:
    first = _first(value)
    if not hasattr(first, "shape"):
        return TensorInfo(name=name)
    return TensorInfo(name=name, shape=tuple(first.shape), dtype=str(first.dtype).removeprefix("torch."))


def _notes(unknown: list[str]) -> tuple[str, ...]:
    if not unknown:
        return ()
    return (f"{len(unknown)} nodes have operators without a known cost: {', '.join(sorted(set(unknown)))}",)
