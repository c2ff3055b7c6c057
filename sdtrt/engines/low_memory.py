"""Low memory: of all engines only one is loaded at a time; a call of another one replaces it."""

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


class EngineSlot:
    """Holds the one engine that is loaded; threads take turns."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.lock = threading.RLock()
        self._owner: Path | None = None
        self._engine: Engine | None = None

    def load(self, folder: Path, context: EngineContext) -> tuple[Engine, float | None]:
        """The engine of `folder`, and the seconds of its loading or None when it was loaded already.

        The caller holds the lock while it uses the engine.
        """
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
    """Loads its engine into the slot when it is called; the time of such a call includes the loading."""

    def __init__(self, context: EngineContext, folder: Path, slot: EngineSlot, device: Any) -> None:
        super().__init__(context, device)
        self.backend = slot.backend
        self._folder, self._slot = folder, slot
        self._loads, self._load_s = 0, 0.0

    def notes(self) -> tuple[str, ...]:
        """How often it was loaded, and the seconds of all loadings."""
        return (f"loaded {self._loads} times, in {self._load_s:.2f} s",) if self._loads else ()

    def context_bytes(self) -> tuple[int | None, ...]:
        """Those of the engine itself."""
        with self._slot.lock:
            return self._engine().context_bytes()

    def close(self) -> None:
        """Drop the engine, if it is the one that is loaded."""
        with self._slot.lock:
            self._slot.clear(self._folder)

    def weights(self) -> Any:
        """Unsupported: other weights would be lost with the engine."""
        raise Unsupported(
            "engines that are loaded one at a time cannot take other weights",
            slug="refit-low-memory",
            hint="load the bundle without low_memory",
        )

    def profile(
        self, tensors: Mapping[str, Tensor], sizes: Mapping[str, int], runs: int, folder: Path | None = None
    ) -> Plan:
        """Profile the engine itself; arguments as in `Engine.profile`."""
        with self._slot.lock:
            return self._engine().profile(tensors, sizes, runs, folder)

    def _run(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        with self._slot.lock:
            return self._engine()._run(tensors)

    def _layers(self, tensors: Mapping[str, Tensor], runs: int) -> tuple[Layer, ...]:
        with self._slot.lock:
            return self._engine()._layers(tensors, runs)

    def _engine(self) -> Engine:
        engine, load_s = self._slot.load(self._folder, self.context)
        if load_s is not None:
            self._loads += 1
            self._load_s += load_s
        return engine


def load_lazily(backend: Backend, parts: Mapping[str, tuple[Path, EngineContext]]) -> dict[str, Engine]:
    """Engines by name, one of them in memory: at first that which a pipeline calls first. It gives the device."""
    if not parts:
        return {}
    slot = EngineSlot(backend)
    device = slot.load(*next(iter(parts.values())))[0].device
    return {name: LazyEngine(context, folder, slot, device) for name, (folder, context) in parts.items()}
