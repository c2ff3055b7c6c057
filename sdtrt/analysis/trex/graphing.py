"""TREx's graph functions over `sdtrt.analysis.graph.draw`, for an EnginePlan as well as for a plan."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sdtrt.analysis.graph import draw
from sdtrt.analysis.graph.draw import layer_type_formatter, precision_formatter, render_dot
from sdtrt.analysis.trex.engine_plan import EnginePlan
from sdtrt.analysis.trex.layer import Layer
from sdtrt.plan.layers import Plan

if TYPE_CHECKING:
    import graphviz

__all__ = [
    "around",
    "layer_precision_formatter",
    "layer_type_formatter",
    "precision_formatter",
    "render_dot",
    "subgraph",
    "to_dot",
]

layer_precision_formatter = precision_formatter
_OWN = (layer_type_formatter, precision_formatter)
_OPTIONS = frozenset(inspect.signature(draw.to_dot).parameters)


def to_dot(
    plan: EnginePlan | Plan,
    formatter: Callable[[Any], dict[str, str]] = layer_type_formatter,
    latency_type: str = "avg_time",
    **options: Any,
) -> graphviz.Digraph:
    """A Graphviz graph of the plan; `sdtrt.analysis.graph.draw.to_dot` documents the options.

    A custom formatter is called with TREx's view of the layer. Options of TREx that draw memory regions or
    choose a node's renderer have no counterpart: they are named in a warning and do nothing.
    """
    ignored = sorted(set(options) - _OPTIONS)
    if ignored:
        warnings.warn(f"to_dot does not know, and leaves out: {', '.join(ignored)}", stacklevel=2)
    known = {key: value for key, value in options.items() if key in _OPTIONS}
    own = formatter if formatter in _OWN else lambda layer: formatter(Layer(layer, layer.name))
    return draw.to_dot(_drawn(plan), own, latency_type=latency_type, **known)  # type: ignore[arg-type]


def subgraph(plan: EnginePlan | Plan, pattern: str, **options: Any) -> Plan:
    """The layers whose name matches a regular expression, with their neighbors."""
    return draw.subgraph(_drawn(plan), pattern, **options)


def around(plan: EnginePlan | Plan, layer: str | int, radius: int) -> Plan:
    """The layers that are at most `radius` steps away from a layer."""
    return draw.around(_drawn(plan), layer, radius)


def _drawn(plan: EnginePlan | Plan) -> Plan:
    return plan if isinstance(plan, Plan) else plan.folded
