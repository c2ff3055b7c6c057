"""The gate: one component's engine against what eager PyTorch answered before.

A build, `sdtrt verify` and the search for FP32 islands all judge by it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sdtrt.engines import accuracy
from sdtrt.errors import ShapeError
from sdtrt.verification.reference_outputs import ReferenceOutput, ReferenceOutputs

if TYPE_CHECKING:
    from sdtrt.engines import Engine


@dataclass(frozen=True)
class ComponentReport:
    """Worst relative error at each size, what was left out and why, and the answers that are missed by too much."""

    figures: dict[str, float]
    notes: tuple[str, ...]
    limit: float
    failing: tuple[ReferenceOutput, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether every size is within the limit."""
        return all(error <= self.limit for error in self.figures.values())

    @property
    def error(self) -> float:
        """The worst of all sizes; infinite where a result was not finite."""
        return max(self.figures.values(), default=0.0)

    def __str__(self) -> str:
        """The worst figure and where it was found."""
        where = max(self.figures, key=lambda name: self.figures[name])
        return f"relative error {self.error:.3g} at {where}" if math.isfinite(self.error) else f"NaN or Inf at {where}"


def judge(
    engine: Engine,
    answers: ReferenceOutputs,
    limit: float,
    report: Callable[[str, float], None] = lambda label, share: None,
) -> ComponentReport:
    """Compare at all points that eager was asked for, but those that the engine was not built for."""
    worst, missing = dict[str, tuple[float, ReferenceOutput]](), set[str]()
    for number, answer in enumerate(answers.given):
        name = answer.point.label
        report(f"comparing at {name}", number / len(answers.given))
        found = error(engine, answer)
        if found is None:
            missing.add(name)
        elif name not in worst or found > worst[name][0]:
            worst[name] = found, answer
    notes = tuple(note for name, note in answers.notes.items() if name not in missing)
    failing = tuple(answer for found, answer in worst.values() if not found <= limit)
    return ComponentReport({name: found for name, (found, _) in worst.items()}, notes, limit, failing)


def error(engine: Engine, answer: ReferenceOutput) -> float | None:
    """Relative error; None when the engine was built for guidance only, or for more images than were made."""
    try:
        outputs = accuracy.run(engine, answer.point.inputs(engine.spec, answer.seed))
    except ShapeError:
        if answer.point.alone or answer.point.given is not None:
            return None
        raise
    return accuracy.worst_error(outputs, answer.outputs)
