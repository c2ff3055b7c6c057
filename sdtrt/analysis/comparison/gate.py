"""The regression gate of continuous integration: engines that became slower, findings of a severity.

A slowdown counts when it is larger than the percentage that is allowed and larger than what noise explains
(`noise.py`). Where only single figures were recorded, as in trtexec's averages, the noise is not known: the percentage
alone decides then, and the check notes it.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, get_args

from sdtrt.analysis.comparison.compare import Comparison, Group, PlanDiff
from sdtrt.analysis.comparison.noise import Estimate, change_error_ms, estimate, layers_estimate, threshold
from sdtrt.analysis.findings import SEVERITIES, Finding
from sdtrt.analysis.module_paths import module_at
from sdtrt.analysis.rule_support.view import Severity
from sdtrt.analysis.summary import number
from sdtrt.errors import ConfigError

Unit = Literal["total", "module", "layer"]
UNITS: tuple[Unit, ...] = get_args(Unit)
SIGMAS = 3.0
MODULE_DEPTH = 2


@dataclass(frozen=True)
class Check:
    """One time of the baseline against the candidate's; times are None where they were not measured.

    The candidate fails when it is slower by more than `allowed_ms` and by more than `noise_ms`, which is None where the
    noise is not known.
    """

    candidate: str
    component: str
    what: str
    before: Estimate | None
    after: Estimate | None
    allowed_ms: float | None
    noise_ms: float | None

    @property
    def delta_ms(self) -> float | None:
        """How much slower the candidate is; None when there is nothing to compare."""
        return None if self.before is None or self.after is None else self.after.ms - self.before.ms

    @property
    def status(self) -> Literal["ok", "slower", "not compared"]:
        """The result of the check."""
        if self.delta_ms is None:
            return "not compared"
        return "slower" if self.delta_ms > max(self.allowed_ms or 0, self.noise_ms or 0) else "ok"

    @property
    def reason(self) -> str:
        """The figures that decide the status, in a line."""
        if self.before is None or self.after is None or self.delta_ms is None:
            sides = {"baseline": self.before, "candidate": self.after}
            return f"no times in the {' and the '.join(side for side, time in sides.items() if time is None)}"
        noise = "noise unknown" if self.noise_ms is None else f"noise {number(self.noise_ms, 'ms')}"
        change = f"{number(self.before.ms, 'ms')} → {number(self.after.ms, 'ms')}"
        percent = f" ({100 * self.delta_ms / self.before.ms:+.1f} %)" if self.before.ms else ""
        return f"{change}{percent}; allowed {number(self.allowed_ms, 'ms')}, {noise}"


def gate(
    comparisons: Iterable[Comparison],
    max_regression_pct: float,
    by: Unit = "total",
    depth: int = MODULE_DEPTH,
    sigmas: float = SIGMAS,
) -> tuple[Check, ...]:
    """Checks of each engine's time and of the parts of it that `by` names.

    Args:
        comparisons: the baseline with each candidate.
        max_regression_pct: slowdown that is allowed, in percent of the baseline's time.
        by: "total" for the engine alone, "module" or "layer" for each of these as well.
        depth: steps of a module path, for modules.
        sigmas: standard errors that a slowdown must exceed.
    """
    checks = []
    for comparison in comparisons:
        for engine in comparison.engines:
            units = [("whole engine", *_whole(engine)), *_units(engine, by, depth)]
            for what, before, after in units:
                allowed_ms = max_regression_pct / 100 * before.ms if before else None
                noise_ms = _noise_ms(before, after, sigmas, len(units)) if before and after else None
                about = (comparison.candidate, engine.component, what)
                checks.append(Check(*about, before, after, allowed_ms, noise_ms))
    return tuple(checks)


def parse_percent(text: str) -> float:
    """Read "3%", "0.5 %" or "3"; a fraction without the sign could mean either and is a ConfigError."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*(%?)\s*", text, re.ASCII)
    value = float(match[1]) if match else -1
    if match is None or value > 1000 or (not match[2] and 0 < value < 1):
        raise ConfigError(
            "not a percentage",
            slug="percentage",
            received=text,
            expected='a number from 0 to 1000, such as "3%"; below 1 with its sign: "0.5%"',
        )
    return value


def at_least(findings: Iterable[Finding], severity: Severity) -> tuple[Finding, ...]:
    """The findings of this severity or above."""
    return tuple(f for f in findings if SEVERITIES.index(f.severity) <= SEVERITIES.index(severity))


def _noise_ms(before: Estimate, after: Estimate, sigmas: float, tests: int) -> float | None:
    """The largest change that noise explains; None when the noise of one side is unknown."""
    error_ms = change_error_ms(before, after)
    return None if error_ms is None else threshold(sigmas, before, after, tests) * error_ms


def _whole(engine: PlanDiff) -> tuple[Estimate | None, Estimate | None]:
    """Wall times when both have them, else sums of layers: never one against the other."""
    before, after = engine.before, engine.after
    if before.wall_times_ms and after.wall_times_ms:
        return estimate(before.wall_times_ms), estimate(after.wall_times_ms)
    return layers_estimate(before.layers), layers_estimate(after.layers)


def _units(engine: PlanDiff, by: Unit, depth: int) -> Iterator[tuple[str, Estimate | None, Estimate | None]]:
    """What only one side has is not compared: it shows in the time of the whole engine."""
    named: dict[tuple[int, str], list[Group]] = {}
    for index, group in enumerate(engine.groups if by != "total" else ()):
        # Layers with one name are different layers; modules with one name are one module.
        key = (index, group.main.name) if by == "layer" else (0, module_at(group.module, depth))
        named.setdefault(key, []).append(group)
    for (_, name), groups in named.items():
        before, after = [x for g in groups for x in g.before], [x for g in groups for x in g.after]
        yield name, layers_estimate(before), layers_estimate(after)
