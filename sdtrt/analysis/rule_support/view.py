"""The input of a rule: one engine's layers with their times, limits, ONNX nodes and neighbors."""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from dataclasses import dataclass, field
from functools import cached_property
from math import isnan
from typing import Literal

import pandas as pd

from sdtrt.analysis.device_peaks import MATRIX_KINDS, DevicePeaks
from sdtrt.costs import layers_of_nodes
from sdtrt.plan.layers import DTYPE_BITS, Layer, NodeCost, Plan
from sdtrt.plan.sums import sum_known

Severity = Literal["high", "medium", "low"]
# Backends and devices whose layers are GPU kernels.
_GPU = re.compile(r"tensorrt|cuda|nvidia|geforce|quadro|\b(tesla|rtx|gtx)\b", re.IGNORECASE)


@dataclass(frozen=True)
class Diagnostic:
    """What a rule found in an engine. `cost_ms` is of one run, None when unknown; `severity` replaces that by cost."""

    message: str
    layers: tuple[str, ...]
    cost_ms: float | None
    severity: Severity | None = None


@dataclass(frozen=True)
class LayerView:
    """One layer, its roofline figures, and the ONNX nodes it implements with the number of layers that share each."""

    layer: Layer
    time_ms: float | None
    ideal_ms: float | None
    headroom_ms: float | None
    ops: frozenset[str]
    node_shares: tuple[tuple[NodeCost, int], ...]

    @property
    def runs(self) -> bool:
        """Whether the layer takes time; a layer that was not timed may."""
        return self.time_ms is None or self.time_ms > 0

    @property
    def dtypes(self) -> tuple[str | None, str | None]:
        """Types of the first input and the first output."""
        first, last = self.layer.inputs[:1], self.layer.outputs[:1]
        return first[0].dtype if first else None, last[0].dtype if last else None

    def work_share(self, wanted: Callable[[NodeCost], bool]) -> float:
        """Share of the layer's work that the wanted nodes are: by FLOPs, else by bytes, else by number."""
        chosen = [wanted(node) for node, _ in self.node_shares]
        for figure in ("flops", "bytes_moved"):
            amounts = [(getattr(node, figure) or 0) / owners for node, owners in self.node_shares]
            if whole := sum(amounts):
                return sum(a for a, yes in zip(amounts, chosen, strict=True) if yes) / whole
        return sum(chosen) / len(chosen)

    def work_ms(self, wanted: Callable[[NodeCost], bool]) -> float | None:
        """The time of the wanted nodes' share."""
        return None if self.time_ms is None else self.time_ms * self.work_share(wanted)


@dataclass(frozen=True)
class View:
    """One engine.

    Attributes:
        frame: its rows of the layer table.
        calls: its runs for one image; None when unknown.
        reported: names of the layers that earlier rules reported.
    """

    plan: Plan
    frame: pd.DataFrame
    peaks: DevicePeaks | None
    calls: int | None = None
    reported: set[str] = field(default_factory=set)

    @cached_property
    def nodes(self) -> Mapping[str, NodeCost]:
        """ONNX nodes by name."""
        return {node.name: node for node in self.plan.nodes}

    @cached_property
    def layers(self) -> tuple[LayerView, ...]:
        """The layers in their order."""
        columns = (self.frame[column] for column in ("time_ms", "ideal_ms", "headroom_ms"))
        figures = ([None if isnan(value) else float(value) for value in column] for column in columns)
        layers, nodes = self.plan.layers, self.nodes
        ops = [frozenset({x.op} | {nodes[name].op for name in x.nodes if name in nodes}) for x in layers]
        return tuple(map(LayerView, layers, *figures, ops, self._share_nodes()))

    @cached_property
    def layers_ms(self) -> float | None:
        """Sum of the layers' times."""
        return time_of(self.layers)

    @cached_property
    def writers(self) -> Mapping[str, LayerView]:
        """The layer that writes each tensor."""
        return {tensor.name: entry for entry in self.layers for tensor in entry.layer.outputs}

    @cached_property
    def readers(self) -> Mapping[str, tuple[LayerView, ...]]:
        """The layers that read each tensor."""
        found: dict[str, list[LayerView]] = defaultdict(list)
        for entry in self.layers:
            for tensor in entry.layer.inputs:
                found[tensor.name].append(entry)
        return {name: tuple(layers) for name, layers in found.items()}

    @property
    def on_gpu(self) -> bool:
        """Whether the layers are GPU kernels."""
        return bool(_GPU.search(f"{self.plan.backend} {self.plan.device}"))

    @cached_property
    def is_half(self) -> bool:
        """Whether the engine was built for 16 bits or fewer; if unknown, whether most convolutions and matmuls are."""
        if self.plan.precision:
            return bool(re.search(r"16|half|[a-z]8|[a-z]4", self.plan.precision.lower()))
        weights: dict[bool, float] = {True: 0.0, False: 0.0}
        for entry in self.layers:
            bits = DTYPE_BITS.get(entry.layer.precision or "")
            if entry.layer.kind in MATRIX_KINDS and bits is not None:
                weights[bits <= 16] += entry.time_ms or 1e-9
        return weights[True] > weights[False]

    @property
    def repeated_share(self) -> float:
        """Share of the runs that follow an image's first; 1 where their number is unknown."""
        return 1.0 if self.calls is None else max(0, self.calls - 1) / max(1, self.calls)

    def writers_of(self, entry: LayerView) -> Iterator[LayerView]:
        """Layers that write what `entry` reads."""
        for tensor in entry.layer.inputs:
            if tensor.name in self.writers:
                yield self.writers[tensor.name]

    def readers_of(self, entry: LayerView) -> Iterator[LayerView]:
        """Layers that read what `entry` writes."""
        for tensor in entry.layer.outputs:
            yield from self.readers.get(tensor.name, ())

    def percent(self, cost_ms: float | None) -> str:
        """The cost in percent of the layers' time, in parentheses after a space; nothing when it is not known."""
        if cost_ms is None or not self.layers_ms:
            return ""
        return f" ({100 * cost_ms / self.layers_ms:.3g} % of the layers' time)"

    def _share_nodes(self) -> Iterator[tuple[tuple[NodeCost, int], ...]]:
        """Nodes of each layer, as `sdtrt.costs.join` shares them; a layer without nodes counts as one node."""
        shares: dict[int, list[tuple[NodeCost, int]]] = defaultdict(list)
        for name, owners in layers_of_nodes(self.plan.layers, self.nodes).items():
            for index in owners:
                shares[index].append((self.nodes[name], len(owners)))
        for index, layer in enumerate(self.plan.layers):
            yield tuple(shares[index]) or ((_as_node(layer), 1),)


def time_of(layers: Iterable[LayerView]) -> float | None:
    """Sum of the known times, in ms; None when none is known."""
    return sum_known(entry.time_ms for entry in layers)


def pluralize(items: Sized, noun: str) -> str:
    """The number of items with their noun: "1 cast", "3 casts"."""
    return f"{len(items):,} {noun}" if len(items) == 1 else f"{len(items):,} {noun}s"


def shorten(name: str, limit: int = 80) -> str:
    """The name, of which the middle is left out where it is long."""
    return name if len(name) <= limit else f"{name[: limit // 2 - 1]}...{name[2 - limit // 2 :]}"


def names_by_time(layers: Iterable[LayerView]) -> tuple[str, ...]:
    """The layers' names, the slowest first."""
    return tuple(entry.layer.name for entry in sorted(layers, key=lambda p: -(p.time_ms or 0)))


def _as_node(layer: Layer) -> NodeCost:
    return NodeCost(
        name=layer.name,
        op=layer.op,
        kind=layer.kind,
        module=layer.module or "",
        flops=layer.flops,
        bytes_moved=layer.bytes_moved,
        weight_bytes=layer.weight_bytes or 0,
    )
