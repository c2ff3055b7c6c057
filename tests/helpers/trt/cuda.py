"""What stands in for CUDA in tests: streams that run at once, events from the clock, graphs that the double records.

It goes where `cuda` of the backend stands; tensors are on the CPU. `WAITS` lists which stream waited for
which, by their handles, so that a test can ask whether work was ordered.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch

from sdtrt.engines.backends.tensorrt.cuda import CudaRuntime, Device

WAITS: list[tuple[int, int]] = []
_handles = itertools.count(0x5000, 0x10)


@dataclass(eq=False)
class Stream:
    """A stream by its handle; 0 is the default one."""

    cuda_stream: int

    def wait_stream(self, other: Stream) -> None:
        WAITS.append((self.cuda_stream, other.cuda_stream))

    def synchronize(self) -> None:
        pass


class Event:
    """A point in time."""

    def record(self, stream: Stream) -> None:
        self.at = time.perf_counter()

    def synchronize(self) -> None:
        pass

    def query(self) -> bool:
        return True

    def elapsed_time(self, later: Event) -> float:
        return (later.at - self.at) * 1e3


@dataclass
class Graph:
    """A captured run."""

    replay: Callable[[], None]
    replays: int = field(default=0)


class CpuCuda(CudaRuntime):
    """CUDA as the engine's files use it."""

    waits = WAITS

    def __init__(self) -> None:
        self._current = threading.local()
        self._default = Stream(0)

    def available(self) -> bool:
        return True

    def device(self, index: int) -> torch.device:
        return torch.device("cpu")

    def describe(self, index: int) -> Device | None:
        from tensorrt._machine import compute_capability, gpu_name

        return Device(gpu_name(), compute_capability(), 4, 16 << 30) if index == 0 else None

    def new_stream(self, device: torch.device, owner: object) -> Stream:
        return Stream(next(_handles))

    def current_stream(self, device: torch.device) -> Stream:
        return getattr(self._current, "stream", self._default)

    @contextmanager
    def use(self, stream: Stream) -> Iterator[None]:
        before = self.current_stream(torch.device("cpu"))
        self._current.stream = stream
        try:
            yield
        finally:
            self._current.stream = before

    def synchronize(self, device: torch.device) -> None:
        pass

    def new_event(self) -> Event:
        return Event()

    def capture(self, stream: Stream, enqueue: Callable[[], bool]) -> Graph | None:
        from tensorrt import _capture
        from tensorrt._machine import fault

        if stream.cuda_stream == 0:
            raise RuntimeError("CUDA graphs must be captured on a non-default stream.")
        _capture.begin()
        try:
            accepted = enqueue()
        finally:
            replay = _capture.end()
        if fault("capture-fails"):
            raise RuntimeError("CUDA error: operation failed due to a previous error during capture")
        return Graph(replay) if accepted else None

    def release_cached_memory(self) -> None:
        pass
