"""Engines that share one place in memory: each is loaded when it is called, and the one before it is dropped."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdtrt.engines.base import Backend, Engine, EngineContext
from sdtrt.errors import Unsupported
from sdtrt.plan.layers import Layer, Plan

if TYPE_CHECKING:
    from torch import Tensor


class Place:
    """Room for one loaded engine; threads take turns."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.lock = threading.RLock()
        self._owner: Path | None = None
        self._engine: Engine | None = None

    def take(self, folder: Path, context: EngineContext) -> tuple[Engine, float | None]:
        """The engine of `folder` and the seconds that loading it took, if it had to; hold the lock while it is used."""
        if self._engine is not None and self._owner == folder:
            return self._engine, None
        self.clear()
        started = time.perf_counter()
        self._owner, self._engine = folder, self.backend.load(folder, context)
        return self._engine, time.perf_counter() - started

    def clear(self, owner: Path | None = None) -> None:
        """Drop the engine that is loaded, or only that of `owner`."""
        if self._engine is None or owner not in (None, self._owner):
            return
        self._engine._wait()
        self._engine.close()
        self._engine = None


class LazyEngine(Engine):
    """Loads its engine into the place when it is called; the time of a call that had to load has that in it."""

    def __init__(self, context: EngineContext, folder: Path, place: Place, device: Any) -> None:
        super().__init__(context, device)
        self.backend = place.backend
        self._folder, self._place = folder, place
        self._loads, self._load_s = 0, 0.0

    def notes(self) -> tuple[str, ...]:
        """How often it was loaded, and how long that took in all."""
        return (f"loaded {self._loads} times, in {self._load_s:.2f} s",) if self._loads else ()

    def context_bytes(self) -> tuple[int | None, ...]:
        """As the engine itself says it."""
        with self._place.lock:
            return self._engine().context_bytes()

    def close(self) -> None:
        """Drop the engine, if it is the one that is loaded."""
        with self._place.lock:
            self._place.clear(self._folder)

    def weights(self) -> Any:
        """Other weights would be forgotten with the engine."""
        raise Unsupported(
            "engines that are loaded one at a time cannot take other weights",
            slug="refit-low-memory",
            hint="load the bundle without low_memory",
        )

    def profile(
        self, tensors: Mapping[str, Tensor], sizes: Mapping[str, int], runs: int, folder: Path | None = None
    ) -> Plan:
        """As the engine itself does it."""
        with self._place.lock:
            return self._engine().profile(tensors, sizes, runs, folder)

    def _run(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        with self._place.lock:
            return self._engine()._run(tensors)

    def _layers(self, tensors: Mapping[str, Tensor], runs: int) -> tuple[Layer, ...]:
        with self._place.lock:
            return self._engine()._layers(tensors, runs)

    def _engine(self) -> Engine:
        engine, load_s = self._place.take(self._folder, self.context)
        if load_s is not None:
            self._loads += 1
            self._load_s += load_s
        return engine


def one_at_a_time(backend: Backend, parts: Mapping[str, tuple[Path, EngineContext]]) -> dict[str, Engine]:
    """Engines by name, of which one is in memory: the first, which a pipeline calls first, tells the device."""
    place = Place(backend)
    first = next(iter(parts.values()), None)
    if first is None:
        return {}
    device = place.take(*first)[0].device
    return {name: LazyEngine(context, folder, place, device) for name, (folder, context) in parts.items()}
