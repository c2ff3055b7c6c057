"""Pictures of engine graphs through Graphviz: `render_dot(to_dot(plan), "unet")` writes unet.svg.

Graphviz lays out large engines slowly, and the picture is too large to read: take a part of the plan first, with
`subgraph`, `around` or `by_module`.
"""

from __future__ import annotations

import importlib
import subprocess
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Literal, get_args

from sdtrt.analysis.graph import style
from sdtrt.analysis.graph.edges import Edge, bindings, edges, one_writer_each
from sdtrt.analysis.graph.select import around, by_module, subgraph
from sdtrt.analysis.graph.style import LatencyType, layer_type_formatter, precision_formatter
from sdtrt.errors import SdtrtError
from sdtrt.plan.layers import Layer, Plan, TensorInfo
from sdtrt.system.files import write_bytes

if TYPE_CHECKING:
    import graphviz

__all__ = [
    "DrawError",
    "around",
    "by_module",
    "layer_type_formatter",
    "precision_formatter",
    "render_dot",
    "subgraph",
    "to_dot",
]

Format = Literal["svg", "png", "dot"]
_HALO = {"color": "#d00000", "penwidth": "5"}
_EDGE_LINES = 4


class DrawError(SdtrtError):
    """A graph could not be drawn."""

    slug = "draw"


def to_dot(
    plan: Plan,
    formatter: Callable[[Layer], dict[str, str]] = layer_type_formatter,
    *,
    display_layer_names: bool = True,
    stack_layer_names: bool = True,
    display_latency: bool = True,
    latency_type: LatencyType = "median_time",
    display_edge_details: bool = True,
    display_metadata: bool = True,
    display_constants: bool = False,
    highlight_layers: Collection[str | int] = (),
    remove_disconnected_layers: bool = False,
) -> graphviz.Digraph:
    """A Graphviz graph of `plan`, a node per layer and an edge per pair of layers.

    Args:
        plan: A whole plan, or a part from `subgraph`, `around` or `by_module`.
        formatter: Gives a layer's Graphviz attributes, its colors for example.
        display_layer_names: Write the name into each node.
        stack_layer_names: A line for each of the names that TensorRT joined with " + ".
        display_latency: Write the time and its share into each node.
        latency_type: "median_time" or "avg_time" of one run, or "time" of all runs.
        display_edge_details: Write shape, type and memory format to each edge.
        display_metadata: Write the ONNX nodes into each node.
        display_constants: Show the layers that only hold a constant.
        highlight_layers: Names or numbers of layers that get a red border.
        remove_disconnected_layers: Leave out layers without any edge.
    """
    graphviz = _graphviz()
    plan = one_writer_each(plan)
    graph_edges = edges(plan)
    shown = {n for n, layer in enumerate(plan.layers) if display_constants or layer.op != "Constant"}
    if remove_disconnected_layers:
        shown &= {
            end for edge in graph_edges for end in (edge.source, edge.target) if {edge.source, edge.target} <= shown
        }
    graph = graphviz.Digraph(name=style.clean(plan.component, 80), comment="written by sdtrt")
    graph.attr("graph", ranksep="0.3", nodesep="0.25", fontname="Helvetica")
    graph.attr("node", shape="box", fontname="Helvetica", fontsize="11", margin="0.08,0.04", color="#00000055")
    graph.attr("edge", fontname="Helvetica", fontsize="9", arrowsize="0.7", fontcolor="#48515e")

    times = [style.latency_ms(layer, latency_type) for layer in plan.layers]
    total_ms = style.totals_ms(plan)[latency_type]
    for number in sorted(shown):
        layer = plan.layers[number]
        rows = style.name_rows(layer.name, stack_layer_names) if display_layer_names else []
        rows += style.latency_rows(times[number], total_ms) if display_latency else []
        rows += style.node_rows(layer) if display_metadata else []
        halo = _HALO if number in highlight_layers or layer.name in highlight_layers else {}
        attributes = {"tooltip": graphviz.escape(style.tooltip(layer)), **formatter(layer), **halo}
        graph.node(f"l{number}", label=style.table(layer.op, rows), **attributes)
    _draw_edges(graph, plan, graph_edges, shown, display_edge_details)
    return graph


def render_dot(graph: graphviz.Digraph, name: str | Path, fmt: Format = "svg", timeout_s: float = 60) -> Path:
    """Write `graph` to a file and return its path.

    Args:
        graph: from `to_dot`.
        name: the file, with or without its ending.
        fmt: "svg", "png" or "dot", Graphviz's own text, which needs no Graphviz.
        timeout_s: seconds after which Graphviz is stopped.

    Raises:
        DrawError: Graphviz is missing, failed, or took longer than `timeout_s`.
    """
    if fmt not in get_args(Format):
        raise DrawError("unknown picture format", slug="format", received=fmt, expected=", ".join(get_args(Format)))
    path = Path(name)
    path = path if path.suffix == f".{fmt}" else path.with_name(f"{path.name}.{fmt}")
    data = graph.source.encode()
    write_bytes(path, data if fmt == "dot" else _dot(data, fmt, timeout_s))
    return path


def _dot(source: bytes, fmt: str, timeout_s: float) -> bytes:
    smaller = "draw a part: subgraph(plan, pattern), around(plan, layer, radius) or by_module(plan, depth)"
    try:
        done = subprocess.run(["dot", f"-T{fmt}"], input=source, capture_output=True, timeout=timeout_s, check=False)
    except FileNotFoundError as exc:
        hint = "install Graphviz (apt install graphviz), or write the text with fmt='dot'"
        raise DrawError("Graphviz is not installed", slug="dot-missing", expected="dot on PATH", hint=hint) from exc
    except subprocess.TimeoutExpired as exc:
        lines = f"{source.count(b'->')} edges"
        raise DrawError(
            f"Graphviz took over {timeout_s:g} s", slug="dot-timeout", received=lines, hint=smaller
        ) from exc
    if done.returncode or not done.stdout:
        reason = done.stderr.decode(errors="replace").strip()[:500] or f"exit code {done.returncode}"
        raise DrawError("Graphviz failed", slug="dot-failed", received=reason, hint=smaller)
    return done.stdout


def _graphviz() -> ModuleType:
    try:
        return importlib.import_module("graphviz")
    except ModuleNotFoundError as exc:
        hint = "pip install graphviz"
        raise DrawError("the Python package graphviz is not installed", slug="graphviz-missing", hint=hint) from exc


def _draw_edges(
    graph: graphviz.Digraph, plan: Plan, graph_edges: Sequence[Edge], shown: AbstractSet[int], text: bool
) -> None:
    """One edge per pair of layers, however many tensors there are, and the engine's own inputs and outputs."""
    from graphviz import escape

    pairs: dict[tuple[str, str], list[TensorInfo | None]] = defaultdict(list)
    for edge in graph_edges:
        if {edge.source, edge.target} <= shown:
            pairs[f"l{edge.source}", f"l{edge.target}"].append(edge.tensor)
    inputs, outputs = bindings(plan)
    frame = "filled" if plan.inputs or plan.outputs else "filled,dashed"  # dashed: the plan does not say what they are
    for end, tensor, layers in _ends(plan, shown, inputs, outputs):
        name = escape(style.clean(tensor.name, style.LINE_CHARS))
        tip = escape(style.clean(style.tensor_text(tensor), style.TOOLTIP_CHARS))
        graph.node(end, label=name, shape="ellipse", style=frame, fillcolor="white", tooltip=tip)
        for layer in layers:
            pairs[(end, f"l{layer}") if end[0] == "i" else (f"l{layer}", end)].append(tensor)
    for (source, target), tensors in pairs.items():
        known = [tensor for tensor in tensors if tensor is not None]
        lines = style.some(list(map(style.edge_text, known)), _EDGE_LINES) if text else []
        tip = style.clean("\n".join(map(style.tensor_text, known)), style.TOOLTIP_CHARS)
        color = style.edge_color(known[0] if known else None)
        more = {"label": escape("\n".join(lines)), "tooltip": escape(tip), "labeltooltip": escape(tip), "color": color}
        graph.edge(source, target, **more)


def _ends(
    plan: Plan, shown: AbstractSet[int], inputs: Sequence[TensorInfo], outputs: Sequence[TensorInfo]
) -> Iterator[tuple[str, TensorInfo, list[int]]]:
    """The engine's inputs ("i0") and outputs ("o0"), each with the layers that read or write it."""
    for letter, tensors in (("i", inputs), ("o", outputs)):
        layers: dict[str, list[int]] = defaultdict(list)
        for number in sorted(shown):
            layer = plan.layers[number]
            for name in {tensor.name for tensor in (layer.inputs if letter == "i" else layer.outputs)}:
                layers[name].append(number)
        for place, tensor in enumerate(tensors):
            if layers[tensor.name]:
                yield f"{letter}{place}", tensor, layers[tensor.name]
