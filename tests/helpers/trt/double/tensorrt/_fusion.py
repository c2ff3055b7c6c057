"""Which ONNX nodes become which layer: the shape of TensorRT's decisions, not its exact ones.

Convolutions are layers of their own, a product takes its bias, MatMul - Softmax - MatMul becomes one attention layer
where the documented conditions hold, everything element by element is gathered into generated kernels, and what only
computes sizes runs on the host.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import onnx

SHUFFLES = {"Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Expand", "Slice", "Concat", "Split", "Identity"}
POINTWISE = {
    *("Add", "Sub", "Mul", "Div", "Pow", "Sqrt", "Exp", "Erf", "Sigmoid", "Tanh", "Relu", "Gelu", "Neg", "Sin", "Cos"),
    *("Where", "Equal", "Less", "Greater", "Cast", "Max", "Min", "Clip", "Reciprocal", "IsNaN", "Not", "And", "Or"),
}
NORMS = {"LayerNormalization", "InstanceNormalization", "GroupNormalization", "ReduceMean", "RMSNormalization"}
PRODUCTS = {"MatMul", "Gemm"}
# What a host does with sizes.
SIZES = {
    "Shape",
    "Size",
    "Constant",
    "Gather",
    "Squeeze",
    "Unsqueeze",
    "Concat",
    "Slice",
    "Cast",
    "Add",
    "Sub",
    "Mul",
    "Div",
}
# What a group of each kind takes in after its first node.
_JOINS = {
    "gemm": {"Add"},
    "kgen": SHUFFLES | POINTWISE | NORMS | {"Softmax"},
    "conv": {"Relu"},
}
_MOST = 12
MAX_HEAD = 256


@dataclass
class Group:
    """The nodes of one layer; `kind` is conv, gemm, mha, kgen or host."""

    kind: str
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    inputs: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    weights: list[str] = field(default_factory=list)


def fuse(model: onnx.ModelProto) -> list[Group]:
    """Groups in the order in which they run."""
    graph = model.graph
    weights = {t.name for t in graph.initializer}
    host = _host(graph, weights)
    consumers = Counter(i for node in graph.node for i in node.input)
    consumers.update(o.name for o in graph.output)
    attention = _attention(graph, weights)
    groups: list[Group] = []
    group_of: dict[str, Group] = {}  # by tensor
    by_site: dict[int, Group] = {}
    for node in graph.node:
        group = None
        if node.name in host:
            group = by_site.setdefault(-1, Group("host"))
        elif node.name in attention:
            group = by_site.setdefault(attention[node.name], Group("mha"))
        else:
            group = next((g for g in _feeding(node, group_of) if _joins(node, g, consumers, weights)), None)
        if group is None:
            group = Group(_kind(node))
        # A group stands where its last node stands, so that all that feeds it runs before; the host's comes first.
        others = [g for g in groups if g is not group]
        groups = [group, *others] if group.kind == "host" else [*others, group]
        group.nodes.append(node)
        group_of |= dict.fromkeys(node.output, group)
    sizes = {o for node in graph.node if node.name in host for o in node.output}
    for group in groups:
        _borders(group, weights, sizes, consumers)
    return groups


def _host(graph: onnx.GraphProto, weights: set[str]) -> set[str]:
    """Names of the nodes that only handle sizes: they come from Shape nodes and constants alone."""
    sizes, found = set(weights), set()
    for node in graph.node:
        fed = [i for i in node.input if i]
        if node.op_type in ("Shape", "Size") or (node.op_type in SIZES and all(i in sizes for i in fed)):
            found.add(node.name)
            sizes.update(node.output)
    return found


def _attention(graph: onnx.GraphProto, weights: set[str]) -> dict[str, int]:
    """{node name: number of the attention} for MatMul - Softmax - MatMul with what scales and masks inside."""
    producer = {o: n for n in graph.node for o in n.output}
    users: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            users.setdefault(name, []).append(node)
    sizes = {v.name: v.type.tensor_type.shape.dim for v in (*graph.value_info, *graph.input)}
    found: dict[str, int] = {}
    for number, softmax in enumerate(n for n in graph.node if n.op_type == "Softmax"):
        inner, tensor = [softmax], softmax.input[0]
        while (before := producer.get(tensor)) is not None and before.op_type in ("Add", "Mul", "Div", "Where"):
            inner.append(before)
            tensor = next((i for i in before.input if i not in weights), before.input[0])
        after = users.get(softmax.output[0], [])
        if before is None or before.op_type != "MatMul" or [a.op_type for a in after] != ["MatMul"]:
            continue  # a Cast between product and softmax stands in the way, as in a real strongly typed network
        head = sizes.get(before.input[0])
        size = head[-1].dim_value if head else 0
        if size > MAX_HEAD or size % 8:
            continue
        scales = [
            p for i in before.input if (p := producer.get(i)) and p.op_type in ("Mul", "Div") and len(users[i]) == 1
        ]
        for node in (*inner, before, *after, *scales):
            found[node.name] = number
    return found


def _feeding(node: onnx.NodeProto, group_of: dict[str, Group]) -> list[Group]:
    return [group_of[i] for i in node.input if i in group_of]


def _joins(node: onnx.NodeProto, group: Group, consumers: Counter[str], weights: set[str]) -> bool:
    """A node joins what feeds it when nothing else reads that: so no circle can arise."""
    if node.op_type not in _JOINS.get(group.kind, ()) or len(group.nodes) >= _MOST:
        return False
    if group.kind == "gemm" and (len(group.nodes) > 1 or not any(i in weights for i in node.input)):
        return False  # only the bias
    between = set(node.input) & {o for n in group.nodes for o in n.output}
    last = group.nodes[-1]
    return between <= set(last.output) and all(consumers[t] == list(node.input).count(t) for t in between)


def _kind(node: onnx.NodeProto) -> str:
    if node.op_type in ("Conv", "ConvTranspose"):
        return "conv"
    if node.op_type == "Attention":
        return "mha"
    return "gemm" if node.op_type in PRODUCTS else "kgen"


def _borders(group: Group, weights: set[str], sizes: set[str], consumers: Counter[str]) -> None:
    made = [o for n in group.nodes for o in n.output if o]
    inner = Counter(i for n in group.nodes for i in n.input)
    fed = [i for n in group.nodes for i in n.input if i and i not in made]
    group.inputs = list(dict.fromkeys(i for i in fed if i not in weights | sizes))
    group.weights = list(dict.fromkeys(i for i in fed if i in weights))
    group.outputs = [o for o in made if consumers[o] > inner[o]]
