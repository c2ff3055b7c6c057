"""Attention written out in an ONNX graph: a product, scaling and masking, a softmax, and a second product.

sdtrt's own exports name these nodes ("/sdpa/"); the graphs of other exporters are recognized by their form.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

import onnx

_PRODUCTS = frozenset({"MatMul", "FusedMatMul"})
# What may stand between a product and the softmax, or between the softmax and the second product.
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
        scores = [n for n in before if n.op_type in _PRODUCTS and not weights & set(n.input)]
        values = [n for n in after if n.op_type in _PRODUCTS and not weights & set(n.input)]
        if scores and values:
            found |= {n.name for n in (softmax, *before, *after)}
    return found


def _upwards(node: onnx.NodeProto, producers: dict[str, onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    """What leads to `node`, up to and with the first product on the main path."""
    while (above := producers.get(next(iter(_main(node, producers)), ""))) is not None:
        if above.op_type not in _BEFORE | _PRODUCTS:
            return
        yield above
        if above.op_type in _PRODUCTS:
            return
        node = above


def _main(node: onnx.NodeProto, producers: dict[str, onnx.NodeProto]) -> Iterator[str]:
    """Inputs of `node` that a product or another step of the scores computes: masks and scales are passed over."""
    for name in node.input:
        if name in producers and producers[name].op_type in _BEFORE | _PRODUCTS:
            yield name


def _downwards(node: onnx.NodeProto, users: dict[str, list[onnx.NodeProto]]) -> Iterator[onnx.NodeProto]:
    stack, seen = [node], {node.name}
    while stack:
        for below in (u for name in stack.pop().output for u in users[name] if u.name not in seen):
            if below.op_type in _AFTER | _PRODUCTS:
                seen.add(below.name)
                yield below
                if below.op_type not in _PRODUCTS:
                    stack.append(below)
