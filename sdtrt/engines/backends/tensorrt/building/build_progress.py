"""Progress of a build from TensorRT's callbacks: nested phases, reported by several threads at once."""

import threading
from dataclasses import dataclass


@dataclass
class _Phase:
    parent: str | None
    steps: int
    done: int = 0


class Phases:
    """The open phases. TensorRT guarantees neither names nor step counts, so only shares of the whole are used."""

    def __init__(self) -> None:
        self._open: dict[str, _Phase] = {}
        self._lock = threading.Lock()
        self._share_done = 0.0

    def start(self, name: str, parent: str | None, steps: int) -> None:
        """A phase begins."""
        with self._lock:
            self._open[name] = _Phase(parent, max(steps, 1))

    def step(self, name: str, step: int) -> None:
        """Step number `step` of a phase is done."""
        with self._lock:
            if name in self._open:
                self._open[name].done = step + 1

    def finish(self, name: str) -> None:
        """A phase ends."""
        with self._lock:
            self._open.pop(name, None)

    def state(self) -> tuple[str, float]:
        """The newest phase with its steps, and the share of the whole that is done, which never falls."""
        with self._lock:
            roots = [n for n, p in self._open.items() if p.parent not in self._open]
            self._share_done = max(self._share_done, *(self._share(n, 0) for n in roots), 0.0)
            if not self._open:
                return "", self._share_done
            name, phase = list(self._open.items())[-1]
            return (f"{name} {phase.done}/{phase.steps}" if phase.steps > 1 else name), self._share_done

    def _share(self, name: str, depth: int) -> float:
        phase = self._open[name]
        inner = [self._share(n, depth + 1) for n, p in self._open.items() if p.parent == name and n != name]
        return min(1.0, (phase.done + (max(inner) if inner else 0.0)) / phase.steps) if depth < 16 else 0.0
