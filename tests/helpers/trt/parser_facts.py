"""An ONNX graph held against what TensorRT's parser and its attention fusion document; nothing is run.

The table of operators is the double's; the conditions of the fusion are those of NVIDIA's page on fused attention: the
scale on query and key before the first product, MatMul - Softmax - MatMul with nothing but a mask between, heads of at
most 256 that are a multiple of 8, and in a strongly typed network no Cast inside.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import Any

import onnx
from trt.use import DOUBLE

MAX_HEAD, HEAD_STEP = 256, 8
_RESIZE = {
    "mode": {"nearest", "linear"},
    "coordinate_transformation_mode": {
        *("half_pixel", "pytorch_half_pixel", "tf_half_pixel_for_nn", "asymmetric", "align_corners"),
    },
    "nearest_mode": {"floor", "ceil", "round_prefer_floor", "round_prefer_ceil"},
    "keep_aspect_ratio_policy": {"stretch"},
}
_MASK = ("Add", "Where")
# What stands on the way from a projection to a product: it moves values, or scales them.
_MOVES = ("Transpose", "Reshape", "Unsqueeze", "Squeeze", "Expand")


def _table() -> Any:
    """The double's facts, without the double: they need no release."""
    spec = importlib.util.spec_from_file_location("_operators", DOUBLE / "tensorrt" / "_operators.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


FACTS = _table()


def refusals(model: onnx.ModelProto, release: tuple[int, int]) -> list[str]:
    """Why the parser of `release` would not take the graph; empty when its documents say that it does."""
    found = []
    opset = next(o.version for o in model.opset_import if o.domain in ("", "ai.onnx"))
    if not FACTS.MIN_OPSET <= opset <= FACTS.max_opset(release):
        found.append(f"opset {opset} is not within {FACTS.MIN_OPSET} to {FACTS.max_opset(release)}")
    found += [f"the domain {o.domain}" for o in model.opset_import if o.domain not in ("", "ai.onnx")]
    known = types(model)
    for node in model.graph.node:
        first = {known.get(node.input[0])} if node.input else set()
        reasons = [FACTS.refusal(node.op_type, first, release), *_restrictions(node)]
        found += [f"{node.name}: {reason}" for reason in reasons if reason]
    return found


def _restrictions(node: onnx.NodeProto) -> list[str]:
    """Restrictions of the table's last column, for the operators that a Stable Diffusion graph has."""
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    if node.op_type == "Resize":
        texts = {name: attributes[name].decode() for name in _RESIZE if name in attributes}
        found = [f"Resize with {name} {text}" for name, text in texts.items() if text not in _RESIZE[name]]
        return found + (["Resize with antialias"] if attributes.get("antialias") else [])
    if node.op_type in ("LayerNormalization", "Attention") and len([o for o in node.output if o]) > 1:
        return [f"{node.op_type} with more than one output"]
    if node.op_type in ("MaxPool", "AveragePool") and set(attributes.get("dilations", [1])) != {1}:
        return [f"{node.op_type} with dilations"]
    return []


def types(model: onnx.ModelProto) -> dict[str, str | None]:
    """TensorRT's name of each tensor's type; what inference cannot tell is missing."""
    names = onnx.TensorProto.DataType
    inferred = onnx.shape_inference.infer_shapes(model).graph
    numbers = {t.name: t.data_type for t in inferred.initializer}
    numbers |= {v.name: v.type.tensor_type.elem_type for v in (*inferred.input, *inferred.value_info, *inferred.output)}
    ours = {"FLOAT16": "HALF", "BFLOAT16": "BF16", "FLOAT8E4M3FN": "FP8"}
    return {name: ours.get(names.Name(n), names.Name(n)) for name, n in numbers.items() if n}


@dataclass(frozen=True)
class Site:
    """One attention: its softmax, where its scale stands, and why it could not be fused."""

    softmax: str
    scale: str
    problem: str | None


def attentions(model: onnx.ModelProto) -> list[Site]:
    """Every attention of the graph: a softmax, or an operator of its own."""
    graph = _Graph(model)
    return [graph.site(n) for n in model.graph.node if n.op_type in ("Softmax", "Attention")]


class _Graph:
    def __init__(self, model: onnx.ModelProto) -> None:
        inferred = onnx.shape_inference.infer_shapes(model).graph
        self.producer = {o: n for n in inferred.node for o in n.output}
        self.users: dict[str, list[onnx.NodeProto]] = {}
        for node in inferred.node:
            for name in node.input:
                self.users.setdefault(name, []).append(node)
        self.constants = {t.name for t in inferred.initializer}
        values = (*inferred.input, *inferred.value_info, *inferred.output)
        self.sizes = {v.name: v.type.tensor_type.shape.dim for v in values}

    def site(self, softmax: onnx.NodeProto) -> Site:
        if softmax.op_type == "Attention":
            return Site(softmax.name, "operator", self._head_problem(softmax.input[0]))
        product, scaled = self._product(softmax)
        if product is None:
            return Site(softmax.name, "none", "no product feeds it")
        if product.op_type == "Cast":
            return Site(softmax.name, "none", "a Cast stands between product and softmax")
        after = [u.op_type for u in self.users.get(softmax.output[0], [])]
        problem = None
        if "Cast" in after:
            problem = "a Cast stands between softmax and product"
        elif after != ["MatMul"]:
            problem = f"the softmax feeds {', '.join(after)}"
        both = [self._is_scaled(i) for i in product.input]
        scale = "query and key" if all(both) else "query or key" if any(both) else "scores" if scaled else "none"
        return Site(softmax.name, scale, problem or self._head_problem(product.input[0]))

    def _product(self, softmax: onnx.NodeProto) -> tuple[onnx.NodeProto | None, bool]:
        """The product whose scores the softmax takes, through masks, and whether the scores are scaled on the way."""
        tensor, scaled = softmax.input[0], False
        while (node := self.producer.get(tensor)) is not None:
            if node.op_type in ("MatMul", "Cast"):
                return node, scaled
            if node.op_type not in (*_MASK, "Mul", "Div"):
                break
            scaled |= node.op_type in ("Mul", "Div")
            inputs = [i for i in node.input if i in self.producer]
            tensor = next((i for i in inputs if self._leads_to_product(i)), inputs[0] if inputs else "")
        return None, scaled

    def _leads_to_product(self, tensor: str) -> bool:
        node = self.producer[tensor]
        return node.op_type in ("MatMul", "Cast", "Mul", "Div", *_MASK)

    def _is_scaled(self, tensor: str) -> bool:
        node = self.producer.get(tensor)
        while node is not None and node.op_type in _MOVES:
            node = self.producer.get(node.input[0])
        return node is not None and node.op_type in ("Mul", "Div")

    def _head_problem(self, query: str) -> str | None:
        dims = self.sizes.get(query)
        head = dims[-1].dim_value if dims else 0
        if not head:
            return "the size of a head is not known"
        return None if head <= MAX_HEAD and head % HEAD_STEP == 0 else f"a head of {head}"
