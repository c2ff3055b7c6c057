"""CUDA graphs of an engine in one thread, by shape; the least recently used one is freed first.

A graph holds addresses, shapes and memory, so each has its own execution context, inputs and outputs, and is valid for
one block of activation memory and one generation of the weights. A shape is captured at its second call: a shape that
is called once is not worth its capture. When CUDA or TensorRT refuses, the shape runs without a graph, and is counted.
"""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sdtrt.engines.backends.tensorrt.running.execution_context import ExecutionContext
from sdtrt.engines.backends.tensorrt.running.stream_memory import Block

if TYPE_CHECKING:
    from torch import Tensor

GraphKey = tuple[int, tuple[tuple[str, tuple[int, ...]], ...]]
_MAX_SEEN = 64


class GraphStats:
    """Counts of how the engine's calls ran, over all threads."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._reasons: Counter[str] = Counter()
        self._lock = threading.Lock()

    def count(self, event: str) -> None:
        """Count a "captured", "replayed" or "plain" run."""
        with self._lock:
            self._counts[event] += 1

    def count_refusal(self, reason: str) -> None:
        """Count a shape that cannot be captured."""
        with self._lock:
            self._reasons[reason] += 1

    def as_json(self) -> dict[str, Any]:
        """Counts and reasons, for a plan's metadata."""
        with self._lock:
            counts = {name: self._counts[name] for name in ("captured", "replayed", "plain")}
            return {**counts, "refused": dict(self._reasons)}

    def __str__(self) -> str:
        """Why shapes run without CUDA graphs; empty when none was refused."""
        with self._lock:
            return f"without CUDA graphs: {'; '.join(self._reasons)}" if self._reasons else ""


@dataclass(frozen=True)
class CapturedGraph:
    """A captured run: `cuda_graph` has `replay()`, which reads `inputs` and writes `outputs`."""

    context: ExecutionContext
    inputs: Mapping[str, Tensor]
    outputs: Mapping[str, Tensor]
    cuda_graph: Any
    block: Block
    generation: int


@dataclass
class GraphCache:
    """The graphs of one engine and thread."""

    capacity: int
    stats: GraphStats
    _graphs: OrderedDict[GraphKey, CapturedGraph] = field(default_factory=OrderedDict)
    _seen: OrderedDict[GraphKey, None] = field(default_factory=OrderedDict)
    _refused: set[GraphKey] = field(default_factory=set)

    def find(self, key: GraphKey, block: Block, generation: int) -> CapturedGraph | None:
        """The graph of a key, if it is still valid."""
        graph = self._graphs.pop(key, None)
        if graph is None or graph.block is not block or graph.generation != generation:
            return None
        self._graphs[key] = graph  # as the most recently used
        return graph

    def should_capture(self, key: GraphKey) -> bool:
        """Whether to capture a shape now: this is not its first call, and no capture of it was refused."""
        if not self.capacity or key in self._refused:
            return False
        seen_before = key in self._seen
        self._seen[key] = None
        self._seen.move_to_end(key)
        while len(self._seen) > _MAX_SEEN:
            self._seen.popitem(last=False)
        return seen_before

    def add(self, key: GraphKey, graph: CapturedGraph) -> None:
        """Keep a graph. The caller ensures that the one freed for it is not running."""
        while self._graphs and len(self._graphs) >= self.capacity:
            self._graphs.popitem(last=False)
        self._graphs[key] = graph

    def refuse(self, key: GraphKey, cause: object) -> None:
        """Exclude a shape from capture, and count the first line of the cause."""
        self._refused.add(key)
        self.stats.count_refusal(str(cause).strip().partition("\n")[0])

    def clear(self) -> None:
        """Free all graphs; their shapes are captured again at their next call."""
        self._graphs.clear()

    def __len__(self) -> int:
        return len(self._graphs)
