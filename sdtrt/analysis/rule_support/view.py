"""What a rule is given: one engine's layers with their times, limits and ONNX nodes, and who feeds whom."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from math import isnan
from typing import Literal

import pandas as pd

from sdtrt.analysis.device_peaks import MATRIX_KINDS, DevicePeaks
from sdtrt.costs import payers_of
from sdtrt.plan.layers import DTYPE_BITS, Layer, NodeCost, Plan

Severity = Literal["high", "medium", "low"]
HALVES = frozenset({"float16", "bfloat16"})
# Backends and devices whose layers are GPU kernels.
_GPU = re.compile(r"tensorrt|cuda|nvidia|geforce|quadro|\b(tesla|rtx|gtx)\b", re.IGNORECASE)


@dataclass(frozen=True)
class Found:
    """What one rule found in one engine. `cost_ms` is of one run and None when unknown; `severity` overrides."""

    message: str
    layers: tuple[str, ...]
    cost_ms: float | None
    severity: Severity | None = None


@dataclass(frozen=True)
class Part:
    """One layer, its roofline figures, and the ONNX nodes it pays for with the number of layers that pay for each."""

    layer: Layer
    time_ms: float | None
    ideal_ms: float | None
    headroom_ms: float | None
    ops: frozenset[str]
    paid: tuple[tuple[NodeCost, int], ...]

    @property
    def runs(self) -> bool:
        """Whether it takes time; one that was not timed may."""
        return self.time_ms is None or self.time_ms > 0

    @property
    def dtypes(self) -> tuple[str | None, str | None]:
        """Types of the first input and the first output."""
        first, last = self.layer.inputs[:1], self.layer.outputs[:1]
        return first[0].dtype if first else None, last[0].dtype if last else None

    def share(self, wanted: Callable[[NodeCost], bool]) -> float:
        """The part of the layer's work that is of the wanted nodes: by FLOPs, else by bytes, else by number."""
        chosen = [wanted(node) for node, _ in self.paid]
        for figure in ("flops", "bytes_moved"):
            amounts = [(getattr(node, figure) or 0) / payers for node, payers in self.paid]
            if whole := sum(amounts):
                return sum(a for a, yes in zip(amounts, chosen, strict=True) if yes) / whole
        return sum(chosen) / len(chosen)

    def ms(self, wanted: Callable[[NodeCost], bool]) -> float | None:
        """The time of the wanted nodes' share."""
        return None if self.time_ms is None else self.time_ms * self.share(wanted)


@dataclass(frozen=True)
class View:
    """One engine. `frame` has its rows of the layer table; `calls` are its runs for one image, None when not known.

    `named` are the layers in which the rules before found something.
    """

    plan: Plan
    frame: pd.DataFrame
    peaks: DevicePeaks | None
    calls: int | None = None
    named: set[str] = field(default_factory=set)

    @cached_property
    def nodes(self) -> Mapping[str, NodeCost]:
        """ONNX nodes by name."""
        return {node.name: node for node in self.plan.nodes}

    @cached_property
    def parts(self) -> tuple[Part, ...]:
        """The layers in their order."""
        figures = self.frame[["time_ms", "ideal_ms", "headroom_ms"]].to_numpy()
        rows = zip(self.plan.layers, figures, self._paid(), strict=True)
        return tuple(
            Part(layer, _known(time_ms), _known(ideal_ms), _known(headroom_ms), self._ops(layer), paid)
            for layer, (time_ms, ideal_ms, headroom_ms), paid in rows
        )

    @cached_property
    def layers_ms(self) -> float | None:
        """Sum of the layers' times."""
        return total(part.time_ms for part in self.parts)

    @cached_property
    def makers(self) -> Mapping[str, Part]:
        """The layer that writes each tensor."""
        return {tensor.name: part for part in self.parts for tensor in part.layer.outputs}

    @cached_property
    def users(self) -> Mapping[str, tuple[Part, ...]]:
        """The layers that read each tensor."""
        found: dict[str, list[Part]] = defaultdict(list)
        for part in self.parts:
            for tensor in part.layer.inputs:
                found[tensor.name].append(part)
        return {name: tuple(parts) for name, parts in found.items()}

    @property
    def on_gpu(self) -> bool:
        """Whether the layers are GPU kernels."""
        return bool(_GPU.search(f"{self.plan.backend} {self.plan.device}"))

    @cached_property
    def is_half(self) -> bool:
        """Whether the engine is meant to compute in 16 bits or fewer: as it was built, else as most products run."""
        if self.plan.precision:
            return bool(re.search(r"16|half|[a-z]8|[a-z]4", self.plan.precision.lower()))
        weights: dict[bool, float] = {True: 0.0, False: 0.0}
        for part in self.parts:
            bits = DTYPE_BITS.get(part.layer.precision or "")
            if part.layer.kind in MATRIX_KINDS and bits is not None:
                weights[bits <= 16] += part.time_ms or 1e-9
        return weights[True] > weights[False]

    @property
    def repeated(self) -> float:
        """Share of the runs that come after an image's first; every run where their number is not known."""
        return 1.0 if self.calls is None else max(0, self.calls - 1) / max(1, self.calls)

    def feeds(self, part: Part) -> Iterator[Part]:
        """Layers that write what `part` reads."""
        for tensor in part.layer.inputs:
            if tensor.name in self.makers:
                yield self.makers[tensor.name]

    def fed(self, part: Part) -> Iterator[Part]:
        """Layers that read what `part` writes."""
        for tensor in part.layer.outputs:
            yield from self.users.get(tensor.name, ())

    def pct(self, cost_ms: float | None) -> str:
        """The cost in percent of the layers' time, in parentheses after a space; nothing when it is not known."""
        if cost_ms is None or not self.layers_ms:
            return ""
        return f" ({100 * cost_ms / self.layers_ms:.3g} % of the layers' time)"

    def _ops(self, layer: Layer) -> frozenset[str]:
        return frozenset({layer.op} | {self.nodes[name].op for name in layer.nodes if name in self.nodes})

    def _paid(self) -> Iterator[tuple[tuple[NodeCost, int], ...]]:
        """As `sdtrt.costs.join` shares nodes out. A layer that pays for no node stands for itself."""
        paid: dict[int, list[tuple[NodeCost, int]]] = defaultdict(list)
        for name, payers in payers_of(self.plan.layers, self.nodes).items():
            for index in payers:
                paid[index].append((self.nodes[name], len(payers)))
        for index, layer in enumerate(self.plan.layers):
            yield tuple(paid[index]) or ((_itself(layer), 1),)


def total(values: Iterable[float | None]) -> float | None:
    """Sum of what is known; None when nothing is."""
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def counted(number: int, noun: str) -> str:
    """The number with its noun: "1 cast", "3 casts"."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def short(name: str, limit: int = 80) -> str:
    """A name for a sentence: both ends of a long one."""
    return name if len(name) <= limit else f"{name[: limit // 2 - 1]}...{name[2 - limit // 2 :]}"


def names(parts: Iterable[Part]) -> tuple[str, ...]:
    """The layers' names, the dearest first."""
    return tuple(part.layer.name for part in sorted(parts, key=lambda p: -(p.time_ms or 0)))


def _known(value: float) -> float | None:
    return None if isnan(value) else float(value)


def _itself(layer: Layer) -> NodeCost:
    return NodeCost(
        name=layer.name,
        op=layer.op,
        kind=layer.kind,
        module=layer.module or "",
        flops=layer.flops,
        bytes_moved=layer.bytes_moved,
        weight_bytes=layer.weight_bytes or 0,
    )
