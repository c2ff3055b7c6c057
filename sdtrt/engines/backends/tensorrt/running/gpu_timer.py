"""Time on the GPU: calls return before the work is done, so a host clock would tell how long it takes to ask."""

from __future__ import annotations

import threading
from typing import Any

from sdtrt.engines.backends.tensorrt import cuda


class GpuClock:
    """Pairs of events around each run, read when someone asks, or when there are more than `kept`."""

    def __init__(self, kept: int | None = 256) -> None:
        self._kept = kept
        self._open: list[tuple[Any, Any]] = []
        self._total_ms = 0.0
        self._lock = threading.Lock()

    def start(self, stream: Any) -> Any:
        """Mark the begin of a run."""
        event = cuda.cuda.new_event()
        event.record(stream)
        return event

    def stop(self, begun: Any, stream: Any) -> None:
        """Mark its end."""
        event = cuda.cuda.new_event()
        event.record(stream)
        with self._lock:
            self._open.append((begun, event))
            if self._kept is not None and len(self._open) > self._kept and self._open[self._kept // 2][1].query():
                self._read(self._kept // 2)

    def take(self) -> list[tuple[Any, Any]]:
        """Wait for all runs and return the events of those that were not read yet."""
        with self._lock:
            return self._read(len(self._open))

    def total_ms(self) -> float:
        """Milliseconds of all runs so far; waits for them."""
        self.take()
        return self._total_ms

    def _read(self, count: int) -> list[tuple[Any, Any]]:
        pairs, self._open = self._open[:count], self._open[count:]
        for begun, ended in pairs:
            ended.synchronize()
            self._total_ms += float(begun.elapsed_time(ended))
        return pairs
