"""What an ONNX graph costs at a shape, node by node, and how engine layers take their share of it.

`graph_costs` prices a file; `join` hands the prices to the layers of a plan, and `payers_of` says who pays for which
node. Weights are never read. The onnx package is loaded when a file is to be priced: reports do without it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sdtrt.costs._join import join, payers_of

if TYPE_CHECKING:
    from sdtrt.costs._graph import GraphCosts, graph_costs
    from sdtrt.costs._liveness import peak_bytes

__all__ = ["GraphCosts", "graph_costs", "join", "payers_of", "peak_bytes"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from sdtrt.costs import _graph, _liveness

    return getattr(_liveness if name == "peak_bytes" else _graph, name)
