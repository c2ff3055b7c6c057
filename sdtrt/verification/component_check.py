"""The component check: one component's engine against the outputs of eager PyTorch.

A build, `sdtrt verify` and the search for float32 nodes all use it.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from sdtrt.engines import Engine, accuracy
from sdtrt.errors import ShapeError
from sdtrt.verification.reference_outputs import ReferenceOutput, ReferenceOutputs


@dataclass(frozen=True)
class ComponentReport:
    """Worst relative error by point, notes on points that were left out, and the references that were missed."""

    figures: dict[str, float]
    notes: tuple[str, ...]
    limit: float
    failing: tuple[ReferenceOutput, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether the error at every point is within the limit."""
        return all(error <= self.limit for error in self.figures.values())

    @property
    def error(self) -> float:
        """The worst error of all points; infinite where a result was not finite."""
        return max(self.figures.values(), default=0.0)

    def __str__(self) -> str:
        """The worst error and its point."""
        where = max(self.figures, key=lambda label: self.figures[label])
        return f"relative error {self.error:.3g} at {where}" if math.isfinite(self.error) else f"NaN or Inf at {where}"


def check_component(
    engine: Engine,
    references: ReferenceOutputs,
    limit: float,
    report: Callable[[str, float], None] = lambda label, share: None,
) -> ComponentReport:
    """Compare an engine with eager PyTorch at every point, except those that the engine was not built for.

    Args:
        engine: the engine of the component.
        references: the outputs of eager PyTorch.
        limit: largest relative error that passes.
        report: receives a label and the share of the points that is done, 0 to 1.
    """
    worst, unsupported = dict[str, tuple[float, ReferenceOutput]](), set[str]()
    for number, reference in enumerate(references.outputs):
        label = reference.point.label
        report(f"comparing at {label}", number / len(references.outputs))
        error = relative_error(engine, reference)
        if error is None:
            unsupported.add(label)
        elif label not in worst or error > worst[label][0]:
            worst[label] = error, reference
    notes = tuple(note for label, note in references.notes.items() if label not in unsupported)
    failing = tuple(reference for error, reference in worst.values() if not error <= limit)
    return ComponentReport({label: error for label, (error, _) in worst.items()}, notes, limit, failing)


def relative_error(engine: Engine, reference: ReferenceOutput) -> float | None:
    """Relative error of the engine at one point; None when the engine was not built for it.

    That may happen without guidance, or with the inputs of an image: other sizes are an error of the engine.
    """
    point = reference.point
    try:
        outputs = accuracy.run(engine, point.inputs(engine.spec, reference.seed))
    except ShapeError:
        if point.guidance_off or point.recorded is not None:
            return None
        raise
    return accuracy.worst_error(outputs, reference.outputs)
