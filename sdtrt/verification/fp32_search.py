"""The search for the nodes of a half precision graph that must compute in float32 for a correct engine.

ONNX Runtime first runs the graph in float32 on the CPU and measures the largest magnitude of every tensor: nodes whose
tensors exceed half precision are tried first. Where nothing overflows, or that was not enough, kinds of layers are
tried: attention, norms, in the end everything. Bisection then drops the modules that are not needed. Every try is an
engine of the backend that is being built, compared with eager PyTorch.
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

# The largest number of half precision; a tensor near it at the build's inputs exceeds it with another prompt.
LARGEST = 65504.0
HEADROOM = 4.0
# A TensorRT engine takes minutes to build: when tries or time are spent, the search returns the best that it has.
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
    """The errors of all tries, and notes on the tries that were not enough."""

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

    def may_continue(self) -> bool:
        return len(self.errors) < TRIES and time.monotonic() - self.started < SEARCH_S

    def note_failure(self, subject: str, nodes: Nodes) -> None:
        self.notes.append(f"{subject} was not enough: error {_figure(self.errors[nodes])}")

    def region(self, nodes: Nodes, method: str) -> Fp32Region:
        after = self.errors.get(nodes, self.before)
        result = f"in float32: {', '.join(modules(nodes))}" if nodes else "no part in float32 helped"
        figures = f"error {_figure(self.before)} before, {_figure(after)} after"
        return Fp32Region(nodes, self.before, after, (result, f"{method}; {figures}", *self.notes))


def search(path: Path, inputs: Sequence[Mapping[str, Tensor]], trial: Trial, before: float, limit: float) -> Fp32Region:
    """Find nodes that must compute in float32 for an engine to be within `limit` of eager PyTorch.

    Args:
        path: the half precision ONNX graph.
        inputs: inputs by name at which the engine failed.
        trial: builds an engine with the given nodes in float32; returns its relative error.
        before: relative error of the engine without nodes in float32.
        limit: largest relative error that passes.

    Returns:
        The region; it has no nodes when nothing helped.
    """
    model = onnx.load(path, load_external_data=False)
    run = _Search(trial, limit, before)
    magnitudes_by_tensor = magnitudes(path, inputs)
    overflowing = {t: m for t, m in magnitudes_by_tensor.items() if LARGEST < m < math.inf}
    if overflowing:
        near = {t for t, m in magnitudes_by_tensor.items() if LARGEST / HEADROOM < m < math.inf}
        nodes = frozenset(n.name for n in model.graph.node if near & {*n.input, *n.output})
        first = next(n.name for n in model.graph.node if overflowing.keys() & set(n.output))
        top = max(overflowing.values())
        run.notes.append(f"{len(overflowing)} tensors exceed {LARGEST:.0f} in float32, up to {top:.3g}; first: {first}")
        if run.passes(nodes):
            return run.region(nodes, "what overflows in half precision")
        run.note_failure("widening what overflows", nodes)
    for kind, nodes in _nodes_by_kind(model).items():
        if run.passes(nodes):
            return run.region(smallest(nodes, run.passes, run.may_continue), f"{kind}, narrowed down by bisection")
        run.note_failure(f"{kind} in float32", nodes)
    return run.region(frozenset(), f"{len(run.errors)} engines tried")


def smallest(nodes: Nodes, passes: Callable[[Nodes], bool], may_continue: Callable[[], bool]) -> Nodes:
    """Drop modules that are not needed: halves first, then quarters, to single modules, while `may_continue`.

    Modules that are neighbors are dropped together, so k culprits among n modules take about 2 k log2(n / k) tries.
    """
    names = sorted(nodes)
    kept = modules(nodes)
    size = -(-len(kept) // 2)
    while size and len(kept) > 1:
        index = 0
        while index < len(kept) and len(kept) > 1:
            smaller = kept[:index] + kept[index + size :]
            if not may_continue():
                return _nodes_of(names, kept)
            if smaller and passes(_nodes_of(names, smaller)):
                kept = smaller
            else:
                index += size
        size = 0 if size == 1 else -(-size // 2)
    return _nodes_of(names, kept)


def magnitudes(path: Path, inputs: Sequence[Mapping[str, Tensor]]) -> dict[str, float]:
    """Largest magnitude of every half precision tensor that the graph at `path` computes, with float32 arithmetic."""
    import onnxruntime as ort

    model = onnx.load(path, load_external_data=False)
    computed = {o for n in model.graph.node for o in n.output}
    tensors = widen_fp32.widen(model, {n.name for n in model.graph.node}).tensors
    watched = [name for name in tensors if name in computed]
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
        for tensors_in in inputs:
            values = session.run(None, {n: t.numpy() for n, t in tensors_in.items()})
            largest = {n: max(largest[n], float(v)) for n, v in zip(watched, values, strict=True)}
    finally:
        file.unlink()
    return largest


def modules(nodes: Iterable[str]) -> list[str]:
    """The modules of nodes, each once."""
    return list(dict.fromkeys(widen_fp32.unit_of(name) for name in sorted(nodes)))


def _nodes_by_kind(model: onnx.ModelProto) -> dict[str, Nodes]:
    nodes = [n for n in model.graph.node if n.name]
    kinds = {
        "attention": frozenset(n.name for n in nodes if "/sdpa/" in n.name) | set(widen_fp32.score_nodes(model)),
        "norms": frozenset(n.name for n in nodes if n.op_type in _NORMS),
        "everything": frozenset(n.name for n in nodes),
    }
    return {kind: names for kind, names in kinds.items() if names}


def _nodes_of(names: Sequence[str], units: Sequence[str]) -> Nodes:
    chosen = set(units)
    return frozenset(n for n in names if widen_fp32.unit_of(n) in chosen)


def _figure(error: float) -> str:
    return f"{error:.2g}" if math.isfinite(error) else "NaN or Inf"
