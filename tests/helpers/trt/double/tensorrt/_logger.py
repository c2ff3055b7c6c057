"""Loggers. The first one that is registered wins, whatever is passed later."""

from __future__ import annotations

import sys

from tensorrt._enums import ENUMS
from tensorrt._strict import Bound, bound

Severity = ENUMS["ILogger.Severity"]


@bound
class ILogger(Bound):
    """To be subclassed; `log` is called with what the library has to say."""

    Severity = Severity
    INTERNAL_ERROR, ERROR, WARNING = Severity.INTERNAL_ERROR, Severity.ERROR, Severity.WARNING
    INFO, VERBOSE = Severity.INFO, Severity.VERBOSE

    def log(self, severity, msg):
        raise RuntimeError('Tried to call pure virtual function "ILogger::log"')


@bound
class Logger(ILogger):
    """Writes to the terminal what is severe enough."""

    def __init__(self, min_severity=Severity.WARNING):
        self._minimum = min_severity

    @property
    def min_severity(self):
        return self._minimum

    @min_severity.setter
    def min_severity(self, value):
        self._minimum = value

    def log(self, severity, msg):
        if severity <= self._minimum:
            sys.stderr.write(f"[TRT] [{severity.name[0]}] {msg}\n")


_registered: list[ILogger] = []


def register(logger: ILogger, creator: str) -> ILogger:
    """Called by everything that takes a logger."""
    if logger is None:
        raise TypeError(f"{creator}: the logger must not be None")
    if not _registered:
        _registered.append(logger)
    elif _registered[0] is not logger:
        warning(
            f"The logger passed into {creator} differs from one already registered for an existing builder, runtime, "
            "or refitter. So the current new logger is ignored, and the existing one will be used instead."
        )
    return _registered[0]


def say(severity, message: str) -> None:
    """Give the registered logger a message."""
    if _registered:
        _registered[0].log(severity, message)


def error(message: str) -> None:
    """Severity ERROR."""
    say(Severity.ERROR, message)


def warning(message: str) -> None:
    """Severity WARNING."""
    say(Severity.WARNING, message)


def info(message: str) -> None:
    """Severity INFO."""
    say(Severity.INFO, message)


def verbose(message: str) -> None:
    """Severity VERBOSE."""
    say(Severity.VERBOSE, message)
