"""Running checks in order: each is timed, none stops the others, and the record is written after each."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from sdtrt.errors import SdtrtError
from sdtrt.selftest._records import Check

Figures = dict[str, Any]


class Failed(Exception):
    """A check did not pass; `figures` are its measurements."""

    def __init__(self, reason: str, figures: Figures | None = None) -> None:
        super().__init__(reason)
        self.figures = figures or {}


class Skipped(Exception):
    """A check cannot run on this machine."""


@dataclass(frozen=True)
class Case:
    """One check; the cases in `needs` must have passed before it."""

    name: str
    title: str
    check: Callable[[Any], Figures]
    needs: tuple[str, ...] = ()


@dataclass
class Runner:
    """Runs checks and keeps their records; `save` gets all records at each change, `report` a label before a check."""

    save: Callable[[tuple[Check, ...]], None]
    report: Callable[[str], None] = lambda label: None
    done: list[Check] = field(default_factory=list)

    def run(self, cases: Iterable[Case], backend: str, subject: Any) -> None:
        """Run the checks of one backend; `subject` is the argument of each."""
        passed: set[str] = set()
        for case in cases:
            running = Check(name=case.name, title=case.title, backend=backend, status="running")
            self.report(f"{backend}: {case.title}")
            self.save((*self.done, running))  # after a crash of the process, the file names the check
            started = time.perf_counter()
            outcome = self._run_case(case, passed, subject)
            outcome["seconds"] = round(time.perf_counter() - started, 3)
            self.done.append(running.model_copy(update=outcome))
            if outcome["status"] == "passed":
                passed.add(case.name)
            self.save(tuple(self.done))

    def skip(self, cases: Iterable[Case], backend: str, reason: str) -> None:
        """Record that none of these can run."""
        self.done += [
            Check(name=c.name, title=c.title, backend=backend, status="skipped", reason=reason) for c in cases
        ]
        self.save(tuple(self.done))

    def _run_case(self, case: Case, passed: set[str], subject: Any) -> dict[str, Any]:
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
        except Exception as exc:  # noqa: BLE001 (the record is for any failure)
            return {"status": "failed", "reason": f"{type(exc).__name__}: {exc}"}
