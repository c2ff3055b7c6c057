"""Running checks one after another: each is timed, none stops the others, and the file is written after each."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from sdtrt.errors import SdtrtError
from sdtrt.selftest._records import Check

Figures = dict[str, Any]


class Failed(Exception):
    """A check that did not pass, and what it measured."""

    def __init__(self, reason: str, figures: Figures | None = None) -> None:
        super().__init__(reason)
        self.figures = figures or {}


class Skipped(Exception):
    """A check that cannot be made here, and why."""


@dataclass(frozen=True)
class Case:
    """One check to make; those in `needs` must have passed before."""

    name: str
    title: str
    check: Callable[[Any], Figures]
    needs: tuple[str, ...] = ()


@dataclass
class Runner:
    """Makes checks and keeps what they say; `saved` is called with all of it whenever that changes."""

    saved: Callable[[tuple[Check, ...]], None]
    done: list[Check] = field(default_factory=list)

    def run(self, cases: Iterable[Case], backend: str, subject: Any, report: Callable[[str], None]) -> None:
        """Make the checks of one backend; `subject` is handed to each."""
        passed: set[str] = set()
        for case in cases:
            begun = Check(name=case.name, title=case.title, backend=backend, status="running")
            report(f"{backend}: {case.title}")
            self.saved((*self.done, begun))  # a library that takes the process down leaves its name in the file
            started = time.perf_counter()
            ended = self._one(case, passed, subject)
            ended["seconds"] = round(time.perf_counter() - started, 3)
            self.done.append(begun.model_copy(update=ended))
            if ended["status"] == "passed":
                passed.add(case.name)
            self.saved(tuple(self.done))

    def skip(self, cases: Iterable[Case], backend: str, reason: str) -> None:
        """Note that none of these can be made."""
        self.done += [
            Check(name=c.name, title=c.title, backend=backend, status="skipped", reason=reason) for c in cases
        ]
        self.saved(tuple(self.done))

    def _one(self, case: Case, passed: set[str], subject: Any) -> dict[str, Any]:
        missing = [name for name in case.needs if name not in passed]
        if missing:
            return {"status": "skipped", "reason": f"{missing[0]} did not pass"}
        try:
            return {"status": "passed", "figures": case.check(subject)}
        except Skipped as exc:
            return {"status": "skipped", "reason": str(exc)}
        except Failed as exc:
            return {"status": "failed", "reason": str(exc), "figures": exc.figures}
        except SdtrtError as exc:
            return {"status": "failed", "reason": f"({exc.slug}) {exc}"}
        except Exception as exc:  # noqa: BLE001 (whatever goes wrong is what the file is for)
            return {"status": "failed", "reason": f"{type(exc).__name__}: {exc}"}
