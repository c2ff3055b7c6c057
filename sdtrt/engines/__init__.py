"""Engine backends: one file each, listed from the folder and imported when named."""

from __future__ import annotations

from sdtrt import registry
from sdtrt.engines._contract import Backend, Engine, EngineContext, EngineWeights, Source, Unavailable
from sdtrt.engines._lazy import one_at_a_time
from sdtrt.engines._tally import note_run, tallying
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


def names() -> tuple[str, ...]:
    """Names of the backends."""
    return registry.names(__name__)


def load(name: str) -> Backend:
    """The backend called `name`, usable or not; BackendUnavailable lists the names when there is none."""
    backend: Backend = registry.load(__name__, name, BackendUnavailable).BACKEND
    return backend


def require(name: str) -> Backend:
    """The backend called `name`, or BackendUnavailable with the reason and the command that mends it."""
    backend = load(name)
    if (why := backend.unavailable()) is not None:
        raise BackendUnavailable(f"{name} cannot run here: {why.reason}", hint=why.fix)
    return backend
