"""join(): the costs of ONNX nodes, divided among the engine layers that implement them.

Rules, so that sums over layers equal sums over nodes, to the last integer:

- A layer has the FLOPs and weights of the nodes that it names. A node that several layers name is shared evenly among
  those of them that are of the node's own kind, and among all of them when none is: the layers called `gemm` pay for a
  MatMul, not the pointwise kernel that adds its bias.
- A layer moves what it reads and writes across its border, not what stays inside a fusion: its own tensors where their
  sizes are known, else the activations that enter or leave the set of its nodes. Weights are read once, on top.
- A dimension that the engine calls dynamic is taken from the ONNX tensor of that name.
- The module is that of the node with the most FLOPs, among those of the layer's own operator where there are any (a
  concatenation that took in an addition stays where it is); without nodes it stays what its reader wrote.
- What no layer names, and layers that name no known node, are listed in the plan's notes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from sdtrt.plan.layers import Layer, NodeCost, Plan, TensorInfo
from sdtrt.plan.sums import sum_complete

if TYPE_CHECKING:
    from sdtrt.costs._graph import GraphCosts


def join(plan: Plan, costs: GraphCosts) -> Plan:
    """`plan` with FLOPs, bytes, weights, modules and resolved shapes; totals are those of the ONNX graph."""
    owners = layers_of_nodes(plan.layers, costs.nodes)
    layers = tuple(_with_costs(index, layer, costs, owners) for index, layer in enumerate(plan.layers))
    return plan.model_copy(
        update={
            "layers": layers,
            "nodes": tuple(costs.nodes.values()),
            "total_flops": sum_complete(c.flops for c in costs.nodes.values()),
            "total_weight_bytes": sum(c.weight_bytes for c in costs.nodes.values()),
            "notes": (*plan.notes, *costs.notes, *_unmatched_notes(plan, costs)),
        }
    )


def layers_of_nodes(layers: Sequence[Layer], nodes: Mapping[str, NodeCost]) -> dict[str, list[int]]:
    """Indices of the layers that share each node: those of its own kind among all that name it, else all of them."""
    naming: dict[str, list[int]] = defaultdict(list)
    for index, layer in enumerate(layers):
        for name in dict.fromkeys(layer.nodes):
            if name in nodes:
                naming[name].append(index)
    return {n: [i for i in named_by if layers[i].kind == nodes[n].kind] or named_by for n, named_by in naming.items()}


def _with_costs(index: int, layer: Layer, costs: GraphCosts, owners: dict[str, list[int]]) -> Layer:
    inputs = tuple(_resolved(t, costs) for t in layer.inputs)
    outputs = tuple(_resolved(t, costs) for t in layer.outputs)
    layer = layer.model_copy(update={"inputs": inputs, "outputs": outputs})
    named = [costs.nodes[n] for n in dict.fromkeys(layer.nodes) if n in costs.nodes]
    if not named:
        # A copy or a change of layout reads and writes its own tensors and no weights.
        return layer.model_copy(update={"bytes_moved": layer.io_bytes if layer.weight_bytes in (0, None) else None})
    weights = sum(_share(c.weight_bytes, owners[c.name], index) for c in named)
    flops = [None if c.flops is None else _share(c.flops, owners[c.name], index) for c in named]
    moved = _moved(layer, named, costs)
    main = _most_expensive([c for c in named if c.op == layer.op] or named)
    return layer.model_copy(
        update={
            "flops": sum_complete(flops),
            "weight_bytes": weights,
            "bytes_moved": None if moved is None else moved + weights,
            "module": main.module,
            # A fusion whose kind the backend leaves open is of the kind of its most expensive node.
            "kind": _most_expensive(named).kind if layer.kind == "other" else layer.kind,
        }
    )


def _moved(layer: Layer, named: list[NodeCost], costs: GraphCosts) -> int | None:
    """Bytes of activations across the layer's border; views and what is computed on the host move nothing."""
    if all(c.bytes_moved == 0 for c in named):
        return 0
    return layer.io_bytes if layer.io_bytes is not None else _border_bytes([c.name for c in named], costs)


def _share(whole: int, owners: list[int], index: int) -> int:
    """The layer's share of an integer; the first owner has the remainder."""
    if index not in owners:
        return 0
    part = whole // len(owners)
    return part + whole - part * len(owners) if index == owners[0] else part


def _most_expensive(nodes: Iterable[NodeCost]) -> NodeCost:
    return max(nodes, key=lambda c: (c.flops or 0, c.bytes_moved or 0))


def _resolved(tensor: TensorInfo, costs: GraphCosts) -> TensorInfo:
    known = costs.tensors.get(tensor.name)
    if known is None or known.shape is None or (tensor.shape is not None and None not in tensor.shape):
        return tensor
    if tensor.shape is not None and len(tensor.shape) != len(known.shape):
        return tensor
    return tensor.model_copy(update={"shape": known.shape, "dtype": tensor.dtype or known.dtype})


def _border_bytes(names: list[str], costs: GraphCosts) -> int | None:
    inside = set(names)
    written = {t for n in inside for t in costs.writes[n]}
    read = {t for n in inside for t in costs.reads[n]}
    leaving = {t for t in written if costs.users[t] - inside or t in costs.outputs}
    return sum_complete(costs.tensors[t].nbytes for t in (read - written) | leaving)


def _unmatched_notes(plan: Plan, costs: GraphCosts) -> tuple[str, ...]:
    named = {n for layer in plan.layers for n in layer.nodes}
    missing = [c for c in costs.nodes.values() if c.name not in named and c.flops]
    unknown = sorted(named - costs.nodes.keys())
    notes = []
    if missing:
        work = sum(c.flops or 0 for c in missing)
        notes.append(
            f"{len(missing)} nodes of the graph with {work / 1e9:.4g} GFLOP are in no layer, such as {missing[0].name}"
        )
    if unknown:
        notes.append(f"{len(unknown)} names in layers are not in the graph, such as {unknown[0][:120]}")
    return tuple(notes)
