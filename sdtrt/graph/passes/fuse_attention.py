"""Replace MatMul, Softmax, MatMul by one `MultiHeadAttention` of ONNX Runtime.

Its kernels keep one tile of scores at a time (flash attention on CUDA, a similar kernel on the CPU). Written out, the
scores of 16 images of 9,216 pixels and five heads are 6.8e9 numbers, which take 14 GB in half precision.

The operator belongs to ONNX Runtime: TensorRT fuses the written-out form, and its parser does not know this operator.
Masked attentions stay: they belong to text encoders, with 77 tokens.

The SDPA fusion of onnxscript 0.7.2 (`fuse_sdpa` with `replace_sdpa_by_mha`) finds the same 14 attentions in the tiny
U-Net, but names no module, gives no reason for what it leaves, and misses a scale on the left of its Mul.
"""

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from sdtrt.graph.run_passes import Result

VERSION = 1
DOMAIN = "com.microsoft"
_TYPES = (np.float32, np.float16)
Tensor: TypeAlias = gs.Variable | gs.Constant


class _OtherForm(Exception):
    """Why a softmax is not that of an attention that the operator computes."""


@dataclass(frozen=True)
class _Attention:
    """A match: queries, keys and values as (B, S, H, D), the factor of the scores, the last MatMul and the result."""

    queries: Tensor
    keys: Tensor
    values: Tensor
    scale: float
    matmul: gs.Node
    result: gs.Variable


def apply(model: onnx.ModelProto) -> Result[onnx.ModelProto]:
    """Fuse every attention without a mask whose heads are split from a last axis of known size."""
    graph = gs.import_onnx(model)
    fused, notes = 0, []
    for softmax in [n for n in graph.nodes if n.op == "Softmax"]:
        try:
            found = _match(graph, softmax)
        except _OtherForm as exc:
            notes.append(f"{softmax.name}: {exc}")
            continue
        folder, _, last = softmax.name.rpartition("/")
        _replace(graph, found, f"{folder}/{last.replace('Softmax', 'MultiHeadAttention')}")
        fused += 1
    if not fused:
        return Result(model, 0, tuple(notes))
    if not any(o.domain == DOMAIN for o in graph.import_domains):
        graph.import_domains.append(onnx.helper.make_opsetid(DOMAIN, 1))
    return Result(gs.export_onnx(graph.cleanup(), do_type_check=False), fused, tuple(notes))


def _match(graph: gs.Graph, softmax: gs.Node) -> _Attention:
    """Recognize softmax(factor * q k^T) v, heads exchanged with tokens before and after."""
    scores = _producer(softmax.inputs[0], "MatMul")
    matmul = _only_user(graph, softmax.outputs[0], "MatMul")
    exchanged = _only_user(graph, matmul.outputs[0], "Transpose")
    if softmax.attrs.get("axis", -1) not in (-1, 3) or matmul.inputs[0] is not softmax.outputs[0]:
        raise _OtherForm("not a softmax over keys")
    if exchanged.attrs.get("perm") != [0, 2, 1, 3]:
        raise _OtherForm("its result is laid out in another way")
    (queries, by), (keys, again) = (_unscaled(t) for t in scores.inputs)
    queries, keys, values = (_tokens_first(t) for t in (queries, _transposed_back(keys), matmul.inputs[1]))
    batches = [part.shape[0] for part in (queries, keys, values)]
    if len(set(batches)) > 1 and any(isinstance(size, int) for size in batches):
        raise _OtherForm(f"batches of {batches}: a product broadcasts them")
    heads = [part.shape[2:] for part in (queries, keys, values)]
    if heads[0] != heads[1] or heads[0] != heads[2] or queries.dtype not in _TYPES:
        raise _OtherForm(f"heads of {heads} in {queries.dtype}")
    if len(exchanged.outputs[0].shape or ()) != 4:
        raise _OtherForm("the shape of its result is not known")
    return _Attention(queries, keys, values, by * again, matmul, exchanged.outputs[0])


def _producer(tensor: Tensor, op: str) -> gs.Node:
    if not tensor.inputs or tensor.inputs[0].op != op:
        producer = tensor.inputs[0].op if tensor.inputs else "a weight or input"
        raise _OtherForm(f"{tensor.name} comes from {producer}, not from {op}")
    return tensor.inputs[0]


def _only_user(graph: gs.Graph, tensor: Tensor, op: str) -> gs.Node:
    if len(tensor.outputs) != 1 or tensor.outputs[0].op != op or any(tensor is o for o in graph.outputs):
        raise _OtherForm(f"{tensor.name} does not go to one {op} alone")
    return tensor.outputs[0]


def _unscaled(tensor: Tensor) -> tuple[Tensor, float]:
    """The tensor without factors of one number, and the factors' product."""
    factor = 1.0
    while tensor.inputs and tensor.inputs[0].op == "Mul":
        sides = tensor.inputs[0].inputs
        numbers = [s for s in sides if isinstance(s, gs.Constant) and s.values.size == 1]
        if len(numbers) != 1:
            break
        factor *= float(numbers[0].values.item())
        tensor = next(s for s in sides if s is not numbers[0])
    return tensor, factor


def _transposed_back(tensor: Tensor) -> Tensor:
    """Keys (B, H, K, D) of (B, H, D, K), which torch writes as a transposition of three axes between two views."""
    if tensor.inputs and tensor.inputs[0].op == "Transpose":
        if tensor.inputs[0].attrs.get("perm") != [0, 1, 3, 2]:
            raise _OtherForm("its keys are laid out in another way")
        return tensor.inputs[0].inputs[0]
    turn = _producer(_producer(tensor, "Reshape").inputs[0], "Transpose")
    view = _producer(turn.inputs[0], "Reshape")
    keys = view.inputs[0]
    # With (-1, K, D) for a view of all heads the last view can only be (B, H, D, K): the MatMul with queries needs D.
    if turn.attrs.get("perm") != [0, 2, 1] or not _is_view_of_heads(view.inputs[1], keys):
        raise _OtherForm("its keys are laid out in another way")
    return keys


def _is_view_of_heads(target: Tensor, keys: Tensor) -> bool:
    """Whether a shape is (-1, K, D) for keys of (B, H, K, D)."""
    _, tokens, _, channels = _tokens_first(keys).shape
    if isinstance(target, gs.Constant):
        return bool(target.values.tolist() == [-1, tokens, channels])
    if not target.inputs or target.inputs[0].op != "Concat":
        return False
    sizes = target.inputs[0].inputs
    ends = [s.values.tolist() if isinstance(s, gs.Constant) else None for s in sizes]
    return len(sizes) == 3 and (ends[0], ends[2]) == ([-1], [channels]) and _is_third_size(sizes[1], keys)


def _is_third_size(size: Tensor, keys: Tensor) -> bool:
    """Whether a number is the third size of `keys`, read off their shape."""
    if not size.inputs or size.inputs[0].op != "Slice":
        return False
    whole, *bounds = size.inputs[0].inputs
    if not whole.inputs or whole.inputs[0].op != "Shape" or whole.inputs[0].inputs[0] is not keys:
        return False
    known = [b.values.item() for b in bounds[:2] if isinstance(b, gs.Constant)]
    return len(known) == 2 and list(range(4))[slice(*known)] == [2]


def _tokens_first(tensor: Tensor) -> Tensor:
    """(B, S, H, D) of (B, H, S, D), with H and D known."""
    exchange = _producer(tensor, "Transpose")
    whole = exchange.inputs[0]
    if exchange.attrs.get("perm") != [0, 2, 1, 3] or len(whole.shape or ()) != 4:
        raise _OtherForm(f"{tensor.name} is not a view of heads")
    if not all(isinstance(size, int) for size in whole.shape[2:]):
        raise _OtherForm(f"the heads of {tensor.name} have no fixed size")
    return whole


def _replace(graph: gs.Graph, found: _Attention, name: str) -> None:
    """Compute the result by one node at the place of the last MatMul, so that no tensor lives longer than before."""
    (heads, size), result = found.queries.shape[2:], found.result
    nodes: list[gs.Node] = []
    inputs = [_joined(nodes, t, f"{name}.{i}") for i, t in enumerate((found.queries, found.keys, found.values))]
    result.inputs.clear()
    joining = [] if any(result is o for o in graph.outputs) else [n for n in result.outputs if n.op == "Reshape"]
    joining = [n for n in joining if len(result.outputs) == 1 and _is_joined(n.outputs[0], result)]
    out = gs.Variable(f"{name}.out", dtype=result.dtype, shape=[*result.shape[:2], heads * size])
    for node in joining:
        out = node.outputs[0]
        node.outputs.clear()
    attributes = {"num_heads": heads, "scale": found.scale}
    nodes.append(gs.Node("MultiHeadAttention", name, attributes, inputs, [out], domain=DOMAIN))
    if not joining:
        target = gs.Constant(f"{name}.out.shape", np.array([0, 0, heads, size]))
        nodes.append(gs.Node("Reshape", f"{name}_Reshape_out", {}, [out, target], [result]))
    place = next(i for i, node in enumerate(graph.nodes) if node is found.matmul)
    graph.nodes[place:place] = nodes


def _joined(nodes: list[gs.Node], split: Tensor, name: str) -> Tensor:
    """(B, S, H * D) of (B, S, H, D): what it was split from, where that is known."""
    if split.inputs and split.inputs[0].op == "Reshape" and _is_joined(split.inputs[0].inputs[0], split):
        return split.inputs[0].inputs[0]
    channels = split.shape[2] * split.shape[3]
    joined = gs.Variable(name, dtype=split.dtype, shape=[*split.shape[:2], channels])
    target = gs.Constant(f"{name}.shape", np.array([0, 0, channels]))
    nodes.append(gs.Node("Reshape", f"{name}_Reshape", {}, [split, target], [joined]))
    return joined


def _is_joined(tensor: Tensor, split: Tensor) -> bool:
    """Whether a tensor is known to have the shape of `split` with heads and their channels as one axis."""
    shape = [*split.shape[:2], split.shape[2] * split.shape[3]]
    return all(shape) and list(tensor.shape or ()) == shape
