"""Which nodes of a half precision graph must compute in float32 so that its engine is right.

The graph is first run in float32 with ONNX Runtime on the CPU, and every tensor tells its largest magnitude: what half
precision cannot hold names its nodes. Where nothing overflows, or that was not enough, kinds of layers are tried
(attention, norms, in the end everything), and of what helps the half that is not needed is dropped, again and again.
Every try is an engine of the backend that is being built, compared with eager PyTorch.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import onnx

from sdtrt.graph import widen_fp32

if TYPE_CHECKING:
    from torch import Tensor

# The largest number of half precision; what comes near it at the build's inputs is over it with another prompt.
LARGEST = 65504.0
HEADROOM = 4.0
# An engine of TensorRT takes minutes: the search then ends with the best that it has.
TRIES, SEARCH_S = 24, 1800.0
_NORMS = {"GroupNormalization", "InstanceNormalization", "LayerNormalization", "RMSNormalization"}

Nodes = frozenset[str]
Trial = Callable[[Nodes], float]


@dataclass(frozen=True)
class Fp32Region:
    """The nodes that stay in float32, the error without and with them, and how they were found."""

    nodes: Nodes
    before: float
    after: float
    notes: tuple[str, ...]


@dataclass
class _Search:
    """Counts the tries and keeps what was told of them."""

    trial: Trial
    limit: float
    before: float
    started: float = field(default_factory=time.monotonic)
    notes: list[str] = field(default_factory=list)
    errors: dict[Nodes, float] = field(default_factory=dict)

    def passes(self, nodes: Nodes) -> bool:
        if nodes not in self.errors:
            self.errors[nodes] = self.trial(nodes)
        return self.errors[nodes] <= self.limit

    def more(self) -> bool:
        return len(self.errors) < TRIES and time.monotonic() - self.started < SEARCH_S

    def found(self, nodes: Nodes, how: str) -> Fp32Region:
        after = self.errors.get(nodes, self.before)
        told = f"in float32: {', '.join(modules(nodes))}" if nodes else "no part in float32 helped"
        figures = f"error {_figure(self.before)} before, {_figure(after)} after"
        return Fp32Region(nodes, self.before, after, (told, f"{how}; {figures}", *self.notes))


def search(path: Path, inputs: Sequence[Mapping[str, Tensor]], trial: Trial, before: float, limit: float) -> Fp32Region:
    """Find nodes of the graph at `path` with which `trial`, an engine's error, is within `limit`.

    `inputs` are those at which the engine was wrong by `before`. The finding has no nodes when nothing helped.
    """
    model = onnx.load(path, load_external_data=False)
    run = _Search(trial, limit, before)
    ranges = magnitudes(path, inputs)
    overflowing = [t for t, largest in ranges.items() if LARGEST < largest < math.inf]
    if overflowing:
        near = {t for t, largest in ranges.items() if LARGEST / HEADROOM < largest < math.inf}
        nodes = frozenset(n.name for n in model.graph.node if near & {*n.input, *n.output})
        first = next(n.name for n in model.graph.node if set(overflowing) & set(n.output))
        top = max(ranges[t] for t in overflowing)
        run.notes.append(f"{len(overflowing)} tensors exceed {LARGEST:.0f} in float32, up to {top:.3g}; first: {first}")
        if run.passes(nodes):
            return run.found(nodes, "what overflows in half precision")
        run.notes.append(f"widening what overflows was not enough: error {_figure(run.errors[nodes])}")
    for how, nodes in _kinds(model).items():
        if run.passes(nodes):
            return run.found(smallest(nodes, run.passes, run.more), f"{how}, narrowed down by bisection")
        run.notes.append(f"{how} in float32 was not enough: error {_figure(run.errors[nodes])}")
    return run.found(frozenset(), f"{len(run.errors)} engines tried")


def smallest(nodes: Nodes, passes: Callable[[Nodes], bool], more: Callable[[], bool]) -> Nodes:
    """Drop modules that are not needed: halves first, then quarters, to single modules, while `more` allows tries.

    Modules that stand together are dropped together, so k culprits among n modules take about 2 k log2(n / k) tries.
    """
    names = sorted(nodes)
    kept = list(dict.fromkeys(map(widen_fp32.unit_of, names)))
    size = -(-len(kept) // 2)
    while size and len(kept) > 1:
        index = 0
        while index < len(kept) and len(kept) > 1:
            rest = kept[:index] + kept[index + size :]
            if not more():
                return _of(names, kept)
            if rest and passes(_of(names, rest)):
                kept = rest
            else:
                index += size
        size = 0 if size == 1 else -(-size // 2)
    return _of(names, kept)


def magnitudes(path: Path, inputs: Sequence[Mapping[str, Tensor]]) -> dict[str, float]:
    """Largest magnitude of every half precision result in the graph at `path`, when all is computed in float32."""
    import onnxruntime as ort

    model = onnx.load(path, load_external_data=False)
    made = {o for n in model.graph.node for o in n.output}
    tensors = widen_fp32.widen(model, {n.name for n in model.graph.node}).tensors
    watched = [name for name in tensors if name in made]
    for name in watched:
        model.graph.node.append(onnx.helper.make_node("Abs", [tensors[name]], [f"{name}/abs"]))
        model.graph.node.append(onnx.helper.make_node("ReduceMax", [f"{name}/abs"], [f"{name}/max"], keepdims=0))
    outputs = [onnx.helper.make_tensor_value_info(f"{n}/max", onnx.TensorProto.FLOAT, []) for n in watched]
    del model.graph.output[:]
    model.graph.output.extend(outputs)
    file = path.with_name("magnitudes.onnx")
    onnx.save(model, file)
    settings = ort.SessionOptions()
    settings.log_severity_level = 3
    # Folding would keep all weights a second time, in float32.
    settings.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    largest = dict.fromkeys(watched, 0.0)
    try:
        session = ort.InferenceSession(str(file), settings, providers=["CPUExecutionProvider"])
        for given in inputs:
            found = session.run(None, {n: t.numpy() for n, t in given.items()})
            largest = {n: max(largest[n], float(f)) for n, f in zip(watched, found, strict=True)}
    finally:
        file.unlink()
    return largest


def modules(nodes: Iterable[str]) -> list[str]:
    """The modules of nodes, each once."""
    return list(dict.fromkeys(widen_fp32.unit_of(name) for name in sorted(nodes)))


def shown(names: Sequence[str], most: int = 8) -> str:
    """The names, shortened where they are many."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")


def _kinds(model: onnx.ModelProto) -> dict[str, Nodes]:
    """What is tried in turn, each with more layers or others than the one before."""
    nodes = [n for n in model.graph.node if n.name]
    kinds = {
        "attention": frozenset(n.name for n in nodes if "/sdpa/" in n.name) | set(widen_fp32.score_nodes(model)),
        "norms": frozenset(n.name for n in nodes if n.op_type in _NORMS),
        "everything": frozenset(n.name for n in nodes),
    }
    return {how: frozenset(names) for how, names in kinds.items() if names}


def _of(names: Sequence[str], units: Sequence[str]) -> Nodes:
    chosen = set(units)
    return frozenset(n for n in names if widen_fp32.unit_of(n) in chosen)


def _figure(error: float) -> str:
    return f"{error:.2g}" if math.isfinite(error) else "NaN or Inf"
