"""Attention written out in an ONNX graph: a matmul, scaling and masking, a softmax, and a second matmul.

sdtrt's own exports name these nodes ("/sdpa/"); the graphs of other exporters are recognized by their form.
"""

from collections import defaultdict
from collections.abc import Iterator

import onnx

_MATMULS = frozenset({"MatMul", "FusedMatMul"})
# Operators between a matmul and the softmax, and between the softmax and the second matmul.
_BEFORE = frozenset({"Mul", "Div", "Add", "Sub", "Cast", "Where", "Clip"})
_AFTER = frozenset({"Cast", "Where", "IsNaN", "Dropout"})


def attention_nodes(graph: onnx.GraphProto) -> set[str]:
    """Names of all nodes that belong to a written-out attention."""
    weights = {t.name for t in graph.initializer}
    producers = {name: node for node in graph.node for name in node.output}
    users: dict[str, list[onnx.NodeProto]] = defaultdict(list)
    for node in graph.node:
        for name in node.input:
            users[name].append(node)
    found: set[str] = set()
    for softmax in (n for n in graph.node if n.op_type == "Softmax"):
        before = list(_upwards(softmax, producers))
        after = list(_downwards(softmax, users))
        scores = [n for n in before if n.op_type in _MATMULS and not weights & set(n.input)]
        values = [n for n in after if n.op_type in _MATMULS and not weights & set(n.input)]
        if scores and values:
            found |= {n.name for n in (softmax, *before, *after)}
    return found


def _upwards(node: onnx.NodeProto, producers: dict[str, onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    """Nodes before `node`, up to and with the first matmul on the main path."""
    while node.op_type not in _MATMULS:
        # Masks and scales are skipped: no operator of the scores computes them.
        feeding = (producers[name] for name in node.input if name in producers)
        above = next((n for n in feeding if n.op_type in _BEFORE | _MATMULS), None)
        if above is None:
            return
        yield above
        node = above


def _downwards(node: onnx.NodeProto, users: dict[str, list[onnx.NodeProto]]) -> Iterator[onnx.NodeProto]:
    stack, seen = [node], {node.name}
    while stack:
        for below in (u for name in stack.pop().output for u in users[name] if u.name not in seen):
            if below.op_type in _AFTER | _MATMULS:
                seen.add(below.name)
                yield below
                if below.op_type not in _MATMULS:
                    stack.append(below)
