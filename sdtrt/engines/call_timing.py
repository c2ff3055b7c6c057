"""Who calls: what one thread's calls of engines took, while others call the same engines.

Totals of an engine are of all threads; the parts of one image are the calls of the thread that makes it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any


class Tally:
    """Calls and seconds of each engine, and the pipeline object that ran."""

    def __init__(self) -> None:
        self.spent: dict[Any, tuple[int, float]] = {}
        self.pipe: Any | None = None

    def add(self, engine: Any, runs: int, seconds: float) -> None:
        """One more call, which took so many runs."""
        calls, total = self.spent.get(engine, (0, 0.0))
        self.spent[engine] = (calls + runs, total + seconds)


_current: ContextVar[Tally | None] = ContextVar("tally", default=None)


@contextmanager
def tallying() -> Iterator[Tally]:
    """Count the calls of this thread; each waits meanwhile until the device is done, so that its time is its own."""
    tally = Tally()
    token = _current.set(tally)
    try:
        yield tally
    finally:
        _current.reset(token)


def current() -> Tally | None:
    """The tally of this thread, if calls are counted."""
    return _current.get()


def note_run(pipe: Any) -> None:
    """Tell the tally which pipeline object a call ran on."""
    if (tally := _current.get()) is not None:
        tally.pipe = pipe
