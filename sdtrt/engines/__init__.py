"""Engine backends: one file each, listed from the folder and imported when named."""

from sdtrt import registry
from sdtrt.engines.base import Backend, Engine, EngineContext, Options, Source, Unavailable
from sdtrt.engines.call_timing import record_pipeline, time_calls
from sdtrt.engines.low_memory import load_lazily
from sdtrt.engines.weights import EngineWeights
from sdtrt.errors import BackendUnavailable

__all__ = [
    "Backend",
    "Engine",
    "EngineContext",
    "EngineWeights",
    "Options",
    "Source",
    "Unavailable",
    "load",
    "load_lazily",
    "names",
    "record_pipeline",
    "require",
    "time_calls",
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
    """The backend called `name`, or BackendUnavailable with the reason and the command that fixes it."""
    backend = load(name)
    if (problem := backend.unavailable()) is not None:
        raise BackendUnavailable(f"{name} cannot run here: {problem.reason}", hint=problem.fix)
    return backend
