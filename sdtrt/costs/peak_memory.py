"""peak_bytes(): the most memory that a graph's activations take at one time, each freed after its last reader.

Engines fuse nodes and need less, or choose kernels with workspaces and need more: this is the need of the graph.
"""

from sdtrt.costs._formulas import is_view
from sdtrt.costs._graph import GraphCosts


def peak_bytes(costs: GraphCosts) -> int | None:
    """Bytes of the activations that exist together at the worst node; None when the size of one is not known.

    Inputs and outputs of the graph are the caller's, and exist all the time. A view shares the memory of what it views.
    """
    sizes = {name: tensor.nbytes for name, tensor in costs.tensors.items()}
    if any(size is None for size in sizes.values()):
        return None
    nbytes = {name: size or 0 for name, size in sizes.items()}
    owner = _owners(costs, nbytes)
    written = {name for names in costs.writes.values() for name in names}
    forever = {owner.get(name, name) for name in (*costs.outputs, *(nbytes.keys() - written)) if name in nbytes}
    last = {owner.get(name, name): node for node in costs.nodes for name in costs.reads[node]}
    live = sum(nbytes[name] for name in forever)
    peak = live
    for node in costs.nodes:
        made = {owner.get(name, name) for name in costs.writes[node]} & set(costs.writes[node])
        live += sum(nbytes[name] for name in made - forever)
        peak = max(peak, live)
        done = {name for name in (owner.get(n, n) for n in (*costs.reads[node], *made)) if last.get(name, node) == node}
        live -= sum(nbytes[name] for name in done - forever)
    return peak


def _owners(costs: GraphCosts, nbytes: dict[str, int]) -> dict[str, str]:
    """The tensor whose memory each view shares."""
    owner: dict[str, str] = {}
    for node, cost in costs.nodes.items():
        source = next(iter(costs.reads[node]), None)
        if source is not None and is_view(cost.op):
            same = (name for name in costs.writes[node] if nbytes[name] == nbytes[source])
            owner |= dict.fromkeys(same, owner.get(source, source))
    return owner
