"""Engine backends: one file each, listed from the folder and imported when named."""

from __future__ import annotations

from sdtrt import registry
from sdtrt.engines.base import Backend, Engine, EngineContext, EngineWeights, Source, Unavailable
from sdtrt.engines.call_timing import note_run, tallying
from sdtrt.engines.low_memory import one_at_a_time
from sdtrt.errors import BackendUnavailable

__all__ = [
    "Backend",
    "Engine",
    "EngineContext",
    "EngineWeights",
    "Source",
    "Unavailable",
    "load",
    "names",
    "note_run",
    "one_at_a_time",
    "require",
    "tallying",
]

BACKENDS = f"{__name__}.backends"


def names() -> tuple[str, ...]:
    """Names of the backends."""
    return registry.names(BACKENDS)


def load(name: str) -> Backend:
    """The backend called `name`, usable or not; BackendUnavailable lists the names when there is none."""
    backend: Backend = registry.load(BACKENDS, name, BackendUnavailable).BACKEND
    return backend


def require(name: str) -> Backend:
    """The backend called `name`, or BackendUnavailable with the reason and the command that mends it."""
    backend = load(name)
    if (why := backend.unavailable()) is not None:
        raise BackendUnavailable(f"{name} cannot run here: {why.reason}", hint=why.fix)
    return backend
