"""The engine calls of one thread: their number and time, while other threads call the same engines.

Totals of an engine are of all threads; the engine times of one image are those of the thread that makes it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any


class CallTimes:
    """Calls and seconds of each engine, and the pipeline object that ran."""

    def __init__(self) -> None:
        self.by_engine: dict[Any, tuple[int, float]] = {}
        self.pipeline: Any | None = None

    def add(self, engine: Any, runs: int, seconds: float) -> None:
        """Add a call, which took `runs` runs of the engine."""
        calls, total = self.by_engine.get(engine, (0, 0.0))
        self.by_engine[engine] = (calls + runs, total + seconds)


_current: ContextVar[CallTimes | None] = ContextVar("call_times", default=None)


@contextmanager
def time_calls() -> Iterator[CallTimes]:
    """Time the calls of this thread; each waits until the device is done, so that its time is the engine's alone."""
    times = CallTimes()
    token = _current.set(times)
    try:
        yield times
    finally:
        _current.reset(token)


def current() -> CallTimes | None:
    """The times of this thread, inside `time_calls`."""
    return _current.get()


def record_pipeline(pipe: Any) -> None:
    """Record which pipeline object a call ran on."""
    if (times := _current.get()) is not None:
        times.pipeline = pipe
