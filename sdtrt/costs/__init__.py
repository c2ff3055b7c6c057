"""FLOPs and bytes of every node of a graph at given shapes, and their division among the layers of an engine.

`graph_costs` computes them for an ONNX file, `fx_costs` for a traced graph of torch. `join` gives each layer of a plan
the costs of the nodes that it implements; `layers_of_nodes` lists the layers that share a node. Weights are never read.
The onnx package is imported on first use, so that reports do without it.
"""

from typing import TYPE_CHECKING, Any

from sdtrt.costs._join import join, layers_of_nodes

if TYPE_CHECKING:
    from sdtrt.costs._fx import fx_costs
    from sdtrt.costs._graph import GraphCosts, graph_costs
    from sdtrt.costs.peak_memory import peak_bytes

__all__ = ["GraphCosts", "fx_costs", "graph_costs", "join", "layers_of_nodes", "peak_bytes"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from sdtrt.costs import _fx, _graph, peak_memory

    homes = {"fx_costs": _fx, "peak_bytes": peak_memory}
    return getattr(homes.get(name, _graph), name)
