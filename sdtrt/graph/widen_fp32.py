"""Nodes of a half precision graph that compute in float32, because their values exceed half precision.

Widened nodes read and write float32; casts stand only between them and other nodes, one per tensor. Every operator
still has one type, so the graph stays strongly typed, and its inputs, outputs and weights keep their types.

`widen` takes any nodes; `sdtrt.verification.fp32_search` finds the nodes that an engine needs, and the pass
`fp32_attention_scores` widens the scores of every attention.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import onnx

from sdtrt.bundle.manifest import Change
from sdtrt.plan.op_kinds import kind_of

VERSION = 1
NAME = "widen_fp32"
# Operators between the first MatMul of an attention and its softmax.
_BETWEEN = {"Add", "Cast", "Div", "Mul", "Reshape", "Where"}
# Operators that state their type themselves, or whose other operands follow from it.
_UNFIT = {"Constant", "ConstantOfShape", "DequantizeLinear", "QuantizeLinear", "CastLike"}


@dataclass(frozen=True)
class Widened:
    """How many nodes compute in float32 now, and what each of their half precision tensors is called there."""

    changed: int
    tensors: dict[str, str]


def widen_file(path: Path, choose: Callable[[onnx.ModelProto], Collection[str]]) -> Change:
    """Widen the nodes that `choose` names in the ONNX file at `path`, whose weights stay where they are."""
    model = onnx.load(path, load_external_data=False)
    before = len(model.graph.node)
    changed = widen(model, choose(model)).changed
    path.unlink()  # the file may be one with another by a hard link
    onnx.save(model, path)
    after = len(model.graph.node)
    return Change(name=NAME, version=VERSION, changed=changed, nodes_before=before, nodes_after=after)


def widen(model: onnx.ModelProto, names: Collection[str]) -> Widened:
    """Let the nodes called `names` compute in float32, in place; a node without a half precision tensor stays.

    Names of nodes are unique, as `export` makes them.
    """
    half = half_tensors(model)
    chosen = {n.name for n in model.graph.node if n.name in names and _fits(n, half)}
    outside = {i for n in model.graph.node if n.name not in chosen for i in n.input}
    outside |= {o.name for o in model.graph.output}
    taken = {name for n in model.graph.node for name in (n.name, *n.output)}
    wide: dict[str, str] = {}
    nodes: list[onnx.NodeProto] = []
    for node in model.graph.node:
        if node.name not in chosen:
            nodes.append(node)
            continue
        folder = node.name.rpartition("/")[0]
        for index, name in enumerate(node.input):
            if name in half:
                if name not in wide:
                    wide[name] = _free(f"{name}/float32", taken)
                    nodes.append(_cast(_free(f"{folder}/Cast_widen", taken), name, wide[name]))
                node.input[index] = wide[name]
        nodes.append(node)
        if node.op_type == "Cast" and node.output[0] in half:
            next(a for a in node.attribute if a.name == "to").i = onnx.TensorProto.FLOAT
        for index, name in enumerate(node.output):
            if name in half:
                wide[name] = node.output[index] = _free(f"{name}/float32", taken)
                if name in outside:
                    narrow = _free(f"{folder}/Cast_narrow", taken)
                    nodes.append(_cast(narrow, wide[name], name, onnx.TensorProto.FLOAT16))
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    made = {name for node in nodes for name in node.output}
    kept = [info for info in model.graph.value_info if info.name in made]
    del model.graph.value_info[:]
    model.graph.value_info.extend(kept)
    return Widened(len(chosen), wide)


def unit_of(node: str) -> str:
    """The module of a node; the matmuls of an attention have their own: "mid_block.attentions.0.sdpa"."""
    return node.rpartition("/")[0].strip("/").replace("/", ".") or "(top)"


def nodes_in(model: onnx.ModelProto, patterns: Sequence[str]) -> set[str]:
    """Names of the nodes in modules called so, or inside them; "*" stands for anything, as in "*.attn1.sdpa"."""
    wanted = [p for pattern in patterns for p in (pattern, f"{pattern}.*")]
    return {n.name for n in model.graph.node if any(fnmatchcase(unit_of(n.name), p) for p in wanted)}


def half_tensors(model: onnx.ModelProto) -> set[str]:
    """Names of all tensors in half precision, weights too."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    infos = (*graph.input, *graph.output, *graph.value_info)
    typed = {i.name: i.type.tensor_type.elem_type for i in infos}
    typed |= {t.name: t.data_type for t in graph.initializer}
    return {name for name, dtype in typed.items() if dtype == onnx.TensorProto.FLOAT16}


def score_nodes(model: onnx.ModelProto) -> Iterator[str]:
    """Names of the nodes from the MatMul of queries and keys to the softmax, of every attention."""
    producers = {name: node for node in model.graph.node for name in node.output}
    for node in model.graph.node:
        if kind_of(node.op_type) == "attention":  # one operator for all of it
            yield node.name
        if node.op_type != "Softmax":
            continue
        path, producer = [node.name], producers.get(node.input[0])
        while producer is not None and producer.op_type in _BETWEEN:
            path.append(producer.name)
            producer = next((p for i in producer.input if (p := producers.get(i)) is not None), None)
        if producer is not None and producer.op_type == "MatMul":
            yield from (*path, producer.name)


def _fits(node: onnx.NodeProto, half: Collection[str]) -> bool:
    if node.op_type in _UNFIT or any(a.type == onnx.AttributeProto.GRAPH for a in node.attribute):
        return False
    return any(name in half for name in (*node.input, *node.output))


def _free(name: str, taken: set[str]) -> str:
    """`name`, or with a number where that is taken; it is taken now."""
    found, number = name, 1
    while found in taken:
        found, number = f"{name}_{number}", number + 1
    taken.add(found)
    return found


def _cast(name: str, source: str, target: str, dtype: int = onnx.TensorProto.FLOAT) -> onnx.NodeProto:
    return onnx.helper.make_node("Cast", [source], [target], name, to=dtype)
