"""What a layer looks like in a Graphviz picture: colors, labels and tooltips that no name can break."""

import html
import re
from collections.abc import Iterable
from statistics import fmean
from typing import Literal, get_args

from sdtrt.analysis.colors import KIND_COLORS, precision_color
from sdtrt.analysis.graph.modules import name_parts
from sdtrt.plan.layers import Layer, Plan, TensorInfo, Timing

LatencyType = Literal["median_time", "avg_time", "time"]
LATENCIES: tuple[LatencyType, ...] = get_args(LatencyType)
# Where the metadata of a part of a plan keeps the times of the whole engine, so that shares stay those of the engine.
WHOLE = "whole engine"
# A line of a label, with the attributes of its font.
Row = tuple[str, dict[str, str]]
# Graphviz refuses strings of 16,384 bytes and more. A character has up to four, and quotes are escaped.
TOOLTIP_CHARS = 3500
LINE_CHARS = 48
_UNSAFE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\ufffe\uffff]")
NAME_LINES = 6
NODE_LINES = 8


def layer_type_formatter(layer: Layer) -> dict[str, str]:
    """Graphviz attributes that color a layer by its kind."""
    return _filled(KIND_COLORS[layer.kind])


def precision_formatter(layer: Layer) -> dict[str, str]:
    """Graphviz attributes that color a layer by the precision it computes in."""
    return _filled(precision_color(layer.precision or "unknown"))


def edge_color(tensor: TensorInfo | None) -> str:
    """The color of a tensor's type, darker where it would not be seen as a line on white."""
    color = precision_color((tensor and tensor.dtype) or "unknown")
    light, channels = _lightness(color)
    return color if light < 170 else "#" + "".join(f"{int(0.65 * channel):02x}" for channel in channels)


def totals_ms(plan: Plan) -> dict[str, float]:
    """The sum of all layers by type of latency: of the whole engine also when `plan` is a part of one."""
    if known := plan.metadata.get(WHOLE):
        return {kind: float(str(ms)) for kind, ms in known.items()}
    times = {kind: [latency_ms(layer, kind) for layer in plan.layers] for kind in LATENCIES}
    return {kind: sum(ms for ms in column if ms is not None) for kind, column in times.items()}


def latency_ms(layer: Layer, latency_type: LatencyType) -> float | None:
    """The median or mean of one run, or the sum of all, as TREx names them."""
    timing = layer.timing or Timing()
    if latency_type == "median_time":
        return layer.time_ms
    if latency_type == "avg_time":
        return fmean(layer.times_ms) if layer.times_ms else timing.mean_ms
    return sum(layer.times_ms) if layer.times_ms else timing.total_ms


def tooltip(layer: Layer) -> str:
    """All that is known of a layer as lines of text, cut to what Graphviz takes."""
    skip = {"times_ms", "timing", "inputs", "outputs", "attributes", "nodes"}
    facts = {key: value for key, value in layer if key not in skip and value is not None}
    facts["time_ms"] = layer.time_ms
    facts["nodes"] = ", ".join(layer.nodes)
    facts |= {"in": "; ".join(map(tensor_text, layer.inputs)), "out": "; ".join(map(tensor_text, layer.outputs))}
    lines = [f"{key}: {value}" for key, value in {**facts, **layer.attributes}.items() if value not in (None, "")]
    return clean("\n".join(lines), TOOLTIP_CHARS)


def tensor_text(tensor: TensorInfo, name: bool = True) -> str:
    """A tensor as "x 1x320x64x64 float16"."""
    sizes = None if tensor.shape is None else "x".join("?" if size is None else str(size) for size in tensor.shape)
    parts = (tensor.name if name else None, sizes or None, tensor.dtype)
    return " ".join(part for part in parts if part)


def table(title: str, rows: Iterable[Row]) -> str:
    """An HTML-like label: a bold title over rows of escaped text, each with its font attributes."""
    cells = [f"<tr><td><b>{html.escape(clean(title, LINE_CHARS))}</b></td></tr>"]
    for text, font in rows:
        attributes = "".join(f' {key}="{value}"' for key, value in font.items())
        line = html.escape(clean(text, LINE_CHARS)) or " "
        cells.append(f"<tr><td><font{attributes}>{line}</font></td></tr>")
    return f'<<table border="0" cellborder="0" cellspacing="0" cellpadding="1">{"".join(cells)}</table>>'


def name_rows(name: str, stack: bool) -> list[Row]:
    """A layer's name: a line per fused node if `stack`, wrapped, and cut where it is too long for a box."""
    lines = [line for part in (name_parts(name) if stack else [name]) for line in _wrap(clean(part, 20 * LINE_CHARS))]
    return [(line, {}) for line in some(lines, NAME_LINES)]


def latency_rows(ms: float | None, total_ms: float) -> list[Row]:
    """The time of a layer and its share."""
    share = f", {100 * ms / total_ms:.1f} %" if ms is not None and total_ms else ""
    return [("time unknown" if ms is None else f"{ms:.4g} ms{share}", {"point-size": "12"})]


def node_rows(layer: Layer) -> list[Row]:
    """The ONNX nodes that a layer implements, unless its name says the same; of a module how many layers it has."""
    if layer.op == "Module":
        return [(f"{layer.attributes.get('layers')} layers", {"point-size": "9"})]
    nodes = [node for node in layer.nodes if node not in name_parts(layer.name)]
    # Paths differ at their end.
    ends = [node if len(node) <= LINE_CHARS else f"…{node[1 - LINE_CHARS :]}" for node in nodes]
    return [(node, {"point-size": "9"}) for node in some(ends, NODE_LINES)]


def edge_text(tensor: TensorInfo) -> str:
    """Shape and type of a tensor, and its memory format in a second line."""
    return "\n".join(clean(part, LINE_CHARS) for part in (tensor_text(tensor, name=False), tensor.format) if part)


def some(lines: list[str], most: int) -> list[str]:
    """The first lines, and how many were left out."""
    return lines if len(lines) <= most else [*lines[: most - 1], f"… {len(lines) - most + 1} more"]


def clean(text: str, length: int | None = None) -> str:
    """`text` without what SVG cannot hold (control characters, halves of surrogate pairs), cut to `length`."""
    if length is not None and len(text) > length:
        text = f"{text[: length - 1]}…"
    return _UNSAFE.sub(" ", text).encode("utf-8", "replace").decode()


def _wrap(text: str) -> list[str]:
    """Lines of at most `LINE_CHARS`, broken before a separator where there is one in the second half."""
    lines = []
    while len(text) > LINE_CHARS:
        place = max(text.rfind(mark, LINE_CHARS // 2, LINE_CHARS) for mark in " /._+")
        cut = place if place > 0 else LINE_CHARS
        lines.append(text[:cut])
        text = text[cut:]
    return [*lines, text]


def _filled(color: str) -> dict[str, str]:
    return {
        "style": "filled,rounded",
        "fillcolor": color,
        "fontcolor": "black" if _lightness(color)[0] > 140 else "white",
    }


def _lightness(color: str) -> tuple[float, tuple[int, int, int]]:
    red, green, blue = (int(color[at : at + 2], 16) for at in (1, 3, 5))
    return 0.299 * red + 0.587 * green + 0.114 * blue, (red, green, blue)
