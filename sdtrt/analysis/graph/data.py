"""The engine graph as data for the report's widget (page/graph.js): a tree of modules, layers and edges of each plan.

The widget starts with the groups that are `open` and works out what is visible itself. Layers and tensors are columns,
an edge is [source, target, tensor], and everything is numbered by its place. What is not known is None.
"""

from typing import Any

import pandas as pd

from sdtrt.analysis.graph.edges import edges
from sdtrt.analysis.graph.style import clean, tensor_text
from sdtrt.analysis.graph.tree import group_tree
from sdtrt.analysis.session import Analysis
from sdtrt.plan.layers import Plan, TensorInfo

# Longer names are cut, as are lists of ONNX nodes: this is a picture, the layer table has them whole.
TEXT_CHARS = 300
MOST_NODES = 20
_TEXTS = ("name", "module", "op", "kind", "precision", "kernel")
_FRAME = {"ms": "time_ms", "bound": "bound", "headroom": "headroom_ms", "tflops": "tflops_per_s", "gbs": "gb_per_s"}


def graph_data(analysis: Analysis) -> dict[str, Any]:
    """Everything that the widget shows of all plans, ready for JSON."""
    start, plans = 0, []
    for plan in analysis.plans:
        end = start + len(plan.layers)
        plans.append(_plan(plan, analysis.frame.iloc[start:end]))
        start = end
    return {"plans": plans}


def _plan(plan: Plan, frame: pd.DataFrame) -> dict[str, Any]:
    graph_edges = edges(plan)
    root, labels = group_tree(plan, graph_edges)
    owner = [0] * len(plan.layers)
    groups = []
    for number, parent, group in root.numbered():
        groups.append({"label": _clean(group.label), "path": _clean(group.path), "parent": parent, "open": group.open})
        for layer in group.layers:
            owner[layer] = number
    tensors: dict[TensorInfo, int] = {}
    return {
        "name": _clean(plan.component),
        "groups": groups,
        "layers": {"group": owner, "label": list(map(_clean, labels)), **_layers(plan, frame, tensors)},
        "edges": [[e.source, e.target, None if e.tensor is None else _number(e.tensor, tensors)] for e in graph_edges],
        "tensors": {
            "name": [_clean(tensor.name) for tensor in tensors],
            "type": [_type(tensor) for tensor in tensors],
            "bytes": [tensor.nbytes for tensor in tensors],
        },
    }


def _layers(plan: Plan, frame: pd.DataFrame, tensors: dict[TensorInfo, int]) -> dict[str, list[Any]]:
    layers = plan.layers
    return {
        **{key: [_clean(getattr(layer, key)) for layer in layers] for key in _TEXTS},
        "flops": [layer.flops for layer in layers],
        "bytes": [layer.bytes_moved for layer in layers],
        "weights": [layer.weight_bytes for layer in layers],
        "nodes": [[_clean(node) for node in layer.nodes[:MOST_NODES]] for layer in layers],
        "inputs": [[_number(tensor, tensors) for tensor in layer.inputs] for layer in layers],
        "outputs": [[_number(tensor, tensors) for tensor in layer.outputs] for layer in layers],
        **{key: [None if pd.isna(x) else x for x in frame[column].tolist()] for key, column in _FRAME.items()},
    }


def _number(tensor: TensorInfo, tensors: dict[TensorInfo, int]) -> int:
    return tensors.setdefault(tensor, len(tensors))


def _type(tensor: TensorInfo) -> str:
    return _clean(", ".join(part for part in (tensor_text(tensor, name=False), tensor.format) if part)) or ""


def _clean(text: str | None) -> str | None:
    return None if text is None else clean(text, TEXT_CHARS)
