"""The layer table and every layer's details as plain data, small enough for one page."""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from statistics import median
from typing import Any

import pandas as pd

from sdtrt.analysis.frame import COLUMNS
from sdtrt.plan.layers import Layer, Plan, TensorInfo

DIGITS = 6
NAME_CHARS = 300
TIMES = " \N{MULTIPLICATION SIGN} "
# All layers' attributes and node names together; a page stays small whatever its engine says of itself.
DETAIL_CHARS, LAYER_CHARS = 3_000_000, 20_000
MOST_ITEMS = 200


@dataclass(frozen=True)
class Column:
    """A column of the table: `key` names it in filters, values are divided by `unit`; a width of 0 px is text's own."""

    name: str
    title: str
    key: str
    unit: float = 0
    shown: bool = True
    width: int = 92
    meaning: str = ""

    @property
    def number(self) -> bool:
        """True for numbers, which are right-aligned."""
        return self.unit > 0


TABLE = (
    Column("number", "#", "n", 1, width=64, meaning="place in the engine's own order"),
    Column("name", "Layer", "name", width=320),
    Column("component", "Engine", "engine", shown=False, width=120),
    Column("module", "Module", "module", shown=False, width=280),
    Column("kind", "Kind", "kind", width=112),
    Column("op", "Operator", "op", shown=False, width=140),
    Column("precision", "Precision", "precision", width=96),
    Column("time_ms", "Time, ms", "ms", 1, width=112),
    Column("pct_time", "Time, %", "pct", 1, width=104),
    Column("headroom_ms", "Headroom, ms", "headroom", 1, width=124),
    Column("bound", "Bound", "bound", width=92),
    Column("flops", "GFLOP", "gflop", 1e9, width=88),
    Column("bytes_moved", "Moved, MB", "mb", 1e6, width=104),
    Column("weight_bytes", "Weights, MB", "weights", 1e6, width=112),
    Column("io_bytes", "In, out, MB", "io", 1e6, shown=False, width=108),
    Column("intensity_flop_per_byte", "FLOP/byte", "intensity", 1, width=100),
    Column("tflops_per_s", "TFLOP/s", "tflops", 1, width=92),
    Column("gb_per_s", "GB/s", "gbs", 1, width=84),
    Column("pct_peak_compute", "Compute, %", "compute", 1, width=112),
    Column("pct_peak_bandwidth", "Bandwidth, %", "bandwidth", 1, width=124),
    Column("ideal_ms", "Ideal, ms", "ideal", 1, shown=False, width=96),
    Column("kernel", "Kernel", "kernel", shown=False, width=320),
)


def layer_table(frame: pd.DataFrame, plans: Sequence[Plan]) -> dict[str, Any]:
    """Columns with their values; a number is rounded to six digits and null when it is not known."""
    columns, places = [], [place for plan in plans for place in range(1, len(plan.layers) + 1)]
    for column in TABLE:
        values = places if column.name == "number" else frame[column.name].tolist()
        meaning = column.meaning or COLUMNS[column.name]
        show = rounded if column.number else elide
        plain = [None if pd.isna(v) else show(v / column.unit if column.number else v) for v in values]
        facts = {"name": column.name, "title": column.title, "key": column.key, "number": column.number}
        columns.append({**facts, "shown": column.shown, "width": column.width, "meaning": meaning, "values": plain})
    return {"count": len(frame), "columns": columns}


def layer_details(plans: Sequence[Plan]) -> list[dict[str, Any]]:
    """What the table does not say of each layer: tensors, nodes, attributes and the spread of its times."""
    layers = [layer for plan in plans for layer in plan.layers]
    allowance = min(LAYER_CHARS, DETAIL_CHARS // max(len(layers), 1))
    return [_details(layer, allowance) for layer in layers]


def _details(layer: Layer, allowance: int) -> dict[str, Any]:
    times = sorted(layer.times_ms or ())
    spread = {"runs": len(times), "least": times[0], "median": median(times), "most": times[-1]} if times else None
    nodes = _fitting([elide(node, 1000) for node in layer.nodes], allowance // 2)
    rest = allowance - sum(map(len, nodes))
    attributes = _fitting([(elide(name), _to_text(value)) for name, value in layer.attributes.items()], rest)
    known = {
        "inputs": [_tensor(t) for t in layer.inputs[:MOST_ITEMS]],
        "outputs": [_tensor(t) for t in layer.outputs[:MOST_ITEMS]],
        "nodes": nodes,
        "moreNodes": len(layer.nodes) - len(nodes),
        "attributes": attributes,
        "moreAttributes": len(layer.attributes) - len(attributes),
        "stream": layer.stream,
        "spread": spread,
    }
    return {name: value for name, value in known.items() if value}


def _tensor(tensor: TensorInfo) -> list[Any]:
    shape = None if tensor.shape is None else TIMES.join("?" if size is None else str(size) for size in tensor.shape)
    return [elide(tensor.name), shape, tensor.dtype, tensor.format and elide(tensor.format), tensor.nbytes]


def _fitting(items: Sequence[Any], allowance: int) -> list[Any]:
    kept = []
    for item in items[:MOST_ITEMS]:
        allowance -= len(item) if isinstance(item, str) else sum(map(len, item))
        if allowance < 0:
            break
        kept.append(item)
    return kept


def _to_text(value: Any) -> str:
    return elide(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False), 2000)


def elide(text: object, length: int = NAME_CHARS) -> str:
    """Text of at most `length` characters, of which the middle is left out."""
    line = str(text)
    return line if len(line) <= length else f"{line[: length // 2]}…{line[len(line) - length + length // 2 + 1 :]}"


def rounded(value: float) -> float | None:
    """Six significant digits; None for what JSON cannot hold."""
    if not isfinite(value):
        return None
    short = float(f"{value:.{DIGITS}g}")
    return int(short) if short.is_integer() and abs(short) < 1e15 else short


def indices_of(frame: pd.DataFrame) -> Mapping[tuple[str, str], list[int]]:
    """Numbers of the layers of each engine and name, which need not be unique."""
    found: dict[tuple[str, str], list[int]] = defaultdict(list)
    for index, pair in enumerate(zip(frame["component"], frame["name"], strict=True)):
        found[pair].append(index)
    return found
