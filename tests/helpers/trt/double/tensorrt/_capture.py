"""CUDA graph capture, as far as an engine takes part in it: what is enqueued meanwhile is kept and not run.

The tests' stand-in for CUDA calls `begin` and `end`; what `end` returns runs everything that was recorded, with the
addresses, shapes, memory block and weights of the time of the capture.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

_state = threading.local()


def begin() -> None:
    """Start a capture in this thread."""
    if getattr(_state, "work", None) is not None:
        raise RuntimeError("CUDA error: operation not permitted when stream is capturing")
    _state.work = []


def end() -> Callable[[], None]:
    """End it; the function that is returned replays it."""
    work, _state.work = _state.work, None

    def replay() -> None:
        for step in work:
            step()

    return replay


def recording() -> list[Callable[[], None]] | None:
    """Where to put work, while this thread captures."""
    return getattr(_state, "work", None)
