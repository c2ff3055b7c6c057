"""TensorRT's logger: most of its calls fail with None or False, and only the log has the reason.

TensorRT keeps the first logger of a process, so there is one. Messages go to Python's logging as "sdtrt.tensorrt" and
to the current listeners.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import tensorrt as trt

Listener = Callable[[str, str], None]
_listeners: list[Listener] = []
_lock = threading.Lock()


def logger() -> trt.ILogger:
    """The logger of this process."""
    import tensorrt as trt

    return _logger_of(trt)


@contextmanager
def collect_errors(*more: str) -> Iterator[list[str]]:
    """Yield a list that fills with errors logged inside the block, by any thread; `more` adds other severities."""
    messages: list[str] = []

    def collect(severity: str, message: str) -> None:
        if severity in ("ERROR", "INTERNAL_ERROR", *more):
            messages.append(message)

    with listen(collect):
        yield messages


@contextmanager
def listen(listener: Listener) -> Iterator[None]:
    """Call `listener(severity, message)` for every message that is logged inside the block."""
    with _lock:
        _listeners.append(listener)
    try:
        yield
    finally:
        with _lock:
            _listeners.remove(listener)


@cache
def _logger_of(module: ModuleType) -> Any:
    import tensorrt as trt

    class Log(trt.ILogger):
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self._python = logging.getLogger("sdtrt.tensorrt")

        def log(self, severity: Any, msg: str) -> None:
            name = severity.name
            # At most INFO: errors become exceptions with their text, which must not be printed twice.
            self._python.log(logging.DEBUG if name == "VERBOSE" else logging.INFO, "%s", msg)
            for listener in tuple(_listeners):
                listener(name, msg)

    return Log()
