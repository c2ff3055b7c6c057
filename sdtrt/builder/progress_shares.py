"""How far a build is: what share of it each component and stage takes, from earlier builds or else as a rule."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import accumulate

from sdtrt.builder.build_plan import BuildPlan, ComponentPlan

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


def components(plan: BuildPlan) -> tuple[dict[str, float], float]:
    """The part of every component, and the sum of all with the image at the end: seconds where they are known."""
    if plan.expected_s:
        return {s.spec.name: s.expected_s or 0.0 for s in plan.steps}, plan.expected_s
    parts = {s.spec.name: _COMPONENTS.get(s.spec.name, 1.0) for s in plan.steps}
    return parts, sum(parts.values()) + _IMAGE


def stages(step: ComponentPlan) -> dict[str, tuple[float, float]]:
    """Where every stage of a component begins and ends, as shares of it."""
    known: Mapping[str, float] = step.stages or {}
    lengths = {s: known.get(s, 0.0) for s in _STAGES} if sum(known.values()) else _STAGES
    whole = sum(lengths.values())
    ends = [end / whole for end in accumulate(lengths.values())]
    return dict(zip(lengths, zip([0.0, *ends], ends, strict=False), strict=True))
