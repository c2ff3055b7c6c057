"""CUDA graphs of an engine in one thread: which shapes have one, the least recently used given up first.

A graph has addresses, shapes and memory inside, so each has a context, inputs and outputs of its own, and is valid for
one block of activation memory and one state of the weights. A shape is captured when it comes the second time: one that
comes once is not worth its capture. Where CUDA or TensorRT refuses, the shape runs without a graph, and is counted.
"""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sdtrt.engines.backends.tensorrt.running.execution_context import Binding
from sdtrt.engines.backends.tensorrt.running.stream_memory import Block

if TYPE_CHECKING:
    from torch import Tensor

Key = tuple[int, tuple[tuple[str, tuple[int, ...]], ...]]
_REMEMBERED = 64


class GraphStats:
    """How the engine's calls ran, over all threads."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._reasons: Counter[str] = Counter()
        self._lock = threading.Lock()

    def count(self, what: str) -> None:
        """One more "captured", "replayed" or "plain"."""
        with self._lock:
            self._counts[what] += 1

    def refused(self, reason: str) -> None:
        """One more shape that will not be captured."""
        with self._lock:
            self._reasons[reason] += 1

    def as_json(self) -> dict[str, Any]:
        """For a plan's metadata."""
        with self._lock:
            known = {name: self._counts[name] for name in ("captured", "replayed", "plain")}
            return {**known, "refused": dict(self._reasons)}

    def __str__(self) -> str:
        """For people; empty when every call that could be replayed was."""
        with self._lock:
            if not self._reasons:
                return ""
            return f"without CUDA graphs: {'; '.join(self._reasons)}"


@dataclass(frozen=True)
class Graph:
    """A captured run: `captured` has `replay()`; the tensors are where it reads and writes."""

    binding: Binding
    inputs: Mapping[str, Tensor]
    outputs: Mapping[str, Tensor]
    captured: Any
    block: Block
    generation: int


@dataclass
class GraphCache:
    """The graphs of one engine and thread."""

    capacity: int
    _graphs: OrderedDict[Key, Graph] = field(default_factory=OrderedDict)
    _seen: OrderedDict[Key, None] = field(default_factory=OrderedDict)
    _refused: set[Key] = field(default_factory=set)

    def find(self, key: Key, block: Block, generation: int) -> Graph | None:
        """The graph of a key, if it is still valid."""
        graph = self._graphs.get(key)
        if graph is not None and (graph.block is not block or graph.generation != generation):
            del self._graphs[key]
            return None
        if graph is not None:
            self._graphs.move_to_end(key)
        return graph

    def wants(self, key: Key) -> bool:
        """Whether a shape should be captured now: it was here before and was not refused."""
        if not self.capacity or key in self._refused:
            return False
        known = key in self._seen
        self._seen[key] = None
        self._seen.move_to_end(key)
        while len(self._seen) > _REMEMBERED:
            self._seen.popitem(last=False)
        return known

    def full(self) -> bool:
        """Whether adding one gives up another."""
        return len(self._graphs) >= self.capacity

    def add(self, key: Key, graph: Graph) -> None:
        """Keep a graph; the caller sees to it that nothing runs that it gives up."""
        while self._graphs and self.full():
            self._graphs.popitem(last=False)
        self._graphs[key] = graph

    def refuse(self, key: Key) -> None:
        """Never try this shape again."""
        self._refused.add(key)

    def clear(self) -> None:
        """Give up all graphs; shapes that were captured will be again."""
        self._graphs.clear()

    def __len__(self) -> int:
        return len(self._graphs)
