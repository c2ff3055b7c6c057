"""graph_costs(): every node of an ONNX file with its cost, and every activation with its shape and type.

A node that depends on weights and constants alone, or only computes shapes, costs nothing: engines compute it once or
on the host. The bytes of its weights go to the node that uses the result; weights used twice count for the first user.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError

from sdtrt.costs._attention import attention_nodes
from sdtrt.costs._formulas import bytes_moved, flops, is_view
from sdtrt.costs._shapes import Fact, resolve
from sdtrt.errors import GraphError
from sdtrt.plan.layers import NodeCost, TensorInfo
from sdtrt.plan.node_names import SCOPES, module_of, node_path
from sdtrt.plan.op_kinds import node_kind

_DTYPES = {"float": "float32", "double": "float64"}
_DTYPES |= {"float8e4m3fn": "float8_e4m3fn", "float8e5m2": "float8_e5m2", "float4e2m1": "float4"}


@dataclass(frozen=True)
class GraphCosts:
    """Costs by node name, activations by tensor name, and the activations that each node reads and writes.

    `notes` names nodes of unknown cost; it is empty where `graph_costs` was strict.
    """

    nodes: Mapping[str, NodeCost]
    tensors: Mapping[str, TensorInfo]
    reads: Mapping[str, tuple[str, ...]]
    writes: Mapping[str, tuple[str, ...]]
    outputs: frozenset[str]
    notes: tuple[str, ...] = ()

    @cached_property
    def users(self) -> Mapping[str, frozenset[str]]:
        """Names of the nodes that read each activation."""
        found: dict[str, set[str]] = {name: set() for name in self.tensors}
        for node, names in self.reads.items():
            for name in names:
                found[name].add(node)
        return {name: frozenset(nodes) for name, nodes in found.items()}


def graph_costs(path: Path, shapes: Mapping[str, tuple[int, ...]], *, strict: bool = True) -> GraphCosts:
    """Costs of the nodes of the ONNX file at `path` for inputs of these shapes.

    Without `strict`, a node of unknown shapes or cost has the cost None and a note says why, and a node without a name
    is called as TensorRT's parser calls it, `node_of_<output>`.

    Raises:
        GraphError: the file cannot be read or an input's shape is missing; if `strict`, also for a node without a name,
            or with unknown shapes or cost.
    """
    model = _load(path)
    failed: list[GraphError] | None = None if strict else []
    if not strict:
        _name_nodes(model.graph)
    facts = resolve(model, shapes, failed)
    weights = {t.name for t in model.graph.initializer}
    sources = {name: frozenset({name}) for name in weights}
    attention = attention_nodes(model.graph)
    counted_weights: set[str] = set()
    nodes: dict[str, NodeCost] = {}
    for node in model.graph.node:
        if not node.name or node.name in nodes:
            raise GraphError("two nodes have the same name, or one has none", slug="node-name", received=node.name)
        outputs = [facts[name] for name in node.output if name in facts]
        feeding = [sources[name] for name in node.input if name in sources]
        if outputs and all(f.constant for f in outputs):
            origin = frozenset().union(*feeding) if node.input else frozenset(node.output)
            sources |= dict.fromkeys(node.output, origin)
        free = is_view(node.op_type) or (bool(outputs) and all(f.constant or f.value is not None for f in outputs))
        weights_read = frozenset() if free else frozenset().union(*feeding) - counted_weights
        counted_weights |= weights_read
        nodes[node.name] = NodeCost(
            name=node.name,
            op=node.op_type,
            kind="attention" if node.name in attention else node_kind(node.name, node.op_type),
            module=_module(node),
            weight_bytes=sum(facts[w].nbytes for w in weights_read),
            **(dict.fromkeys(("flops", "bytes_moved"), 0) if free else _figures(node, facts, failed)),
        )
    activations = {name for name, fact in facts.items() if name not in sources and not fact.constant}
    return GraphCosts(
        nodes=nodes,
        tensors={name: _tensor(name, facts[name]) for name in activations},
        reads={n.name: tuple(i for i in dict.fromkeys(n.input) if i in activations) for n in model.graph.node},
        writes={n.name: tuple(o for o in n.output if o in activations) for n in model.graph.node},
        outputs=frozenset(o.name for o in model.graph.output),
        notes=_notes(failed or []),
    )


def _load(path: Path) -> onnx.ModelProto:
    reason: str | Exception = "it holds no graph"
    try:
        # By its name, onnx.load would take a .json file for another form of the same.
        model = onnx.load(path, format="protobuf", load_external_data=False)
        if model.graph.node:
            return model
    except (OSError, DecodeError) as exc:
        reason = exc
    raise GraphError(
        "the ONNX file cannot be read",
        slug="onnx-file",
        received=f"{path}: {reason}",
        expected="the ONNX file that the engine was built from",
    ) from (reason if isinstance(reason, Exception) else None)


def _figures(node: onnx.NodeProto, facts: Mapping[str, Fact], failed: list[GraphError] | None) -> dict[str, int | None]:
    if failed is not None and any(n not in facts for n in (*node.input, *node.output) if n):
        return {"flops": None, "bytes_moved": None}
    moved = bytes_moved(node, facts)
    try:
        return {"flops": flops(node, facts), "bytes_moved": moved}
    except GraphError as exc:
        if failed is None:
            raise
        failed.append(exc)
        return {"flops": None, "bytes_moved": moved}


def _module(node: onnx.NodeProto) -> str:
    """By the node's name, or by what torch's exporter noted where the name holds no path."""
    noted = next((p.value for p in node.metadata_props if p.key == SCOPES), "")
    return module_of(node.name if "/" in node.name or not noted else f"{node_path(noted)}/{node.op_type}")


def _name_nodes(graph: onnx.GraphProto) -> None:
    seen: dict[str, int] = {}
    for node in graph.node:
        name = node.name or f"node_of_{node.output[0] if node.output else node.op_type}"
        seen[name] = seen.get(name, 0) + 1
        node.name = name if seen[name] == 1 else f"{name}_{seen[name] - 1}"


def _tensor(name: str, fact: Fact) -> TensorInfo:
    dtype = onnx.TensorProto.DataType.Name(fact.dtype).lower()
    return TensorInfo(name=name, shape=fact.shape, dtype=_DTYPES.get(dtype, dtype))


def _notes(failed: list[GraphError]) -> tuple[str, ...]:
    if not failed:
        return ()
    first = " ".join(str(failed[0]).split())[:300]
    return (f"{len(failed)} ONNX nodes could not be priced; the first: {first}",)
