"""GPU time of runs: calls return before the work is done, so a host clock would only measure the enqueue."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sdtrt.engines.backends.tensorrt import cuda


class GpuTimer:
    """A pair of events around each run, read on request, or when more than `max_pending` runs are unread."""

    def __init__(self, max_pending: int | None = 256) -> None:
        self._max_pending = max_pending
        self._pending: list[tuple[Any, Any]] = []
        self._total_ms = 0.0
        self._lock = threading.Lock()

    @contextmanager
    def time(self, stream: Any) -> Iterator[None]:
        """Time what the block enqueues on a stream; a block that raises is not counted."""
        started, ended = cuda.runtime.new_event(), cuda.runtime.new_event()
        started.record(stream)
        yield
        ended.record(stream)
        with self._lock:
            self._pending.append((started, ended))
            limit = self._max_pending
            if limit is not None and len(self._pending) > limit and self._pending[limit // 2][1].query():
                self._read(limit // 2)

    def drain(self) -> list[tuple[Any, Any]]:
        """Wait for all runs and return the (start, end) events of the unread ones."""
        with self._lock:
            return self._read(len(self._pending))

    def total_ms(self) -> float:
        """Milliseconds of all runs so far; waits for them."""
        self.drain()
        return self._total_ms

    def _read(self, count: int) -> list[tuple[Any, Any]]:
        pairs, self._pending = self._pending[:count], self._pending[count:]
        for started, ended in pairs:
            ended.synchronize()
            self._total_ms += float(started.elapsed_time(ended))
        return pairs
