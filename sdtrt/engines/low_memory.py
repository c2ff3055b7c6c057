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
    """Holds the one engine that is loaded; threads take turns by its lock."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.lock = threading.RLock()
        self.folder: Path | None = None
        self.engine: Engine | None = None

    def load(self, folder: Path, context: EngineContext) -> Engine:
        """Load the engine of `folder`; the slot must be clear."""
        self.folder, self.engine = folder, self.backend.load(folder, context)
        return self.engine

    def clear(self) -> None:
        """Drop the engine that is loaded."""
        if self.engine is not None:
            self.engine._wait()
            self.engine.close()
        self.folder = self.engine = None


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
            if self._slot.folder == self._folder:
                self._slot.clear()

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
        """Profile the engine itself, as `Engine.profile` does.

        Args:
            tensors: the inputs by name.
            sizes: sizes of the symbols at these inputs.
            runs: timed runs.
            folder: gets the files of the backend's own tools.
        """
        with self._slot.lock:
            return self._engine().profile(tensors, sizes, runs, folder)

    def _run(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        with self._slot.lock:
            return self._engine()._run(tensors)

    def _layers(self, tensors: Mapping[str, Tensor], runs: int) -> tuple[Layer, ...]:
        with self._slot.lock:
            return self._engine()._layers(tensors, runs)

    def _engine(self) -> Engine:
        if self._slot.engine is not None and self._slot.folder == self._folder:
            return self._slot.engine
        self._slot.clear()  # no local name refers to the former engine: it is freed before the next is loaded
        started = time.perf_counter()
        engine = self._slot.load(self._folder, self.context)
        self._loads += 1
        self._load_s += time.perf_counter() - started
        return engine


def load_lazily(backend: Backend, parts: Mapping[str, tuple[Path, EngineContext]]) -> dict[str, Engine]:
    """Engines by name, one of them in memory: at first that which a pipeline calls first. It gives the device."""
    if not parts:
        return {}
    slot = EngineSlot(backend)
    device = slot.load(*next(iter(parts.values()))).device
    return {name: LazyEngine(context, folder, slot, device) for name, (folder, context) in parts.items()}
