"""Progress of a build: the share of each component and stage, from earlier builds on this machine or else typical."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import accumulate

from sdtrt.builder.build_plan import BuildPlan, ComponentPlan

# Receives a label and the share done, 0 to 1.
Progress = Callable[[str, float], None]

# Measured on SD pipelines: parts of the whole, and of one component.
_COMPONENTS = {"unet": 6.0, "vae_decoder": 2.0, "vae_encoder": 2.0}
_IMAGE = 2.0
_STAGES = {
    "load": 0.02,
    "eager": 0.07,
    "calibrate": 0.03,
    "export": 0.60,
    "optimize": 0.05,
    "build": 0.05,
    "verify": 0.08,
    "profile": 0.10,
}


class StageTimer:
    """Seconds of every stage of one component, and its progress as shares of the component."""

    def __init__(self, step: ComponentPlan, report: Progress) -> None:
        self.seconds: dict[str, float] = {}
        self._shares = stages(step)
        self._report = report

    @contextmanager
    def stage(self, name: str, label: str) -> Iterator[Progress]:
        """Time a stage; yields the progress within it."""
        self._report(label, self._shares[name][0])
        started = time.perf_counter()
        yield self.stage_progress(name)
        self.seconds[name] = round(time.perf_counter() - started, 3)

    def stage_progress(self, name: str) -> Progress:
        """The progress within a stage, as a share of the component."""
        return sub_progress(self._report, self._shares[name])


def sub_progress(progress: Progress, shares: tuple[float, float], prefix: str = "") -> Progress:
    """The progress of a part that begins and ends at the `shares` of the whole; `prefix` precedes its labels."""
    start, end = shares
    return lambda label, share: progress(f"{prefix}{label}", start + (end - start) * share)


def forward_only(progress: Progress) -> Progress:
    """A progress that never falls, though an engine may be built more than once."""
    highest = 0.0

    def report(label: str, share: float) -> None:
        nonlocal highest
        highest = max(highest, share)
        progress(label, highest)

    return report


def components(plan: BuildPlan) -> tuple[dict[str, float], float]:
    """The part of every component, and the sum of all with the final image: seconds where they are known."""
    if plan.expected_s:
        return {s.spec.name: s.expected_s or 0.0 for s in plan.steps}, plan.expected_s
    parts = {s.spec.name: _COMPONENTS.get(s.spec.name, 1.0) for s in plan.steps}
    return parts, sum(parts.values()) + _IMAGE


def stages(step: ComponentPlan) -> dict[str, tuple[float, float]]:
    """Where every stage of a component begins and ends, as shares of the component."""
    known: Mapping[str, float] = step.stages or {}
    lengths = {s: known.get(s, 0.0) for s in _STAGES} if sum(known.values()) else _STAGES
    total = sum(lengths.values())
    ends = [end / total for end in accumulate(lengths.values())]
    return dict(zip(lengths, zip([0.0, *ends], ends, strict=False), strict=True))
