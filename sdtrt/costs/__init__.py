"""What a graph costs at a shape, node by node, and how engine layers take their share of it.

`graph_costs` prices an ONNX file, `fx_costs` a traced graph of torch; `join` hands the prices to the layers of a plan,
and `payers_of` says who pays for which node. Weights are never read. The onnx package is loaded when a graph is to be
priced: reports do without it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sdtrt.costs._join import join, payers_of

if TYPE_CHECKING:
    from sdtrt.costs._fx import fx_costs
    from sdtrt.costs._graph import GraphCosts, graph_costs
    from sdtrt.costs.peak_memory import peak_bytes

__all__ = ["GraphCosts", "fx_costs", "graph_costs", "join", "payers_of", "peak_bytes"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from sdtrt.costs import _fx, _graph, peak_memory

    homes = {"fx_costs": _fx, "peak_bytes": peak_memory}
    return getattr(homes.get(name, _graph), name)
