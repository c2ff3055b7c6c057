"""Findings: what the rules of `sdtrt.analysis.rules` report about the engines, the most expensive first.

A rule gives a cost in one run of an engine. Here it becomes milliseconds of an image, by the calls of the engine and
the time that they took in the image, and a severity by its share of the time of all engines in an image: high from 5 %,
medium from 1 %, low below and where the cost is unknown, unless the rule sets one. Findings may name the same layer
for different reasons, so their costs do not add up.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from inspect import getdoc

from sdtrt import registry
from sdtrt.analysis.image_budget import Budget
from sdtrt.analysis.rule_support.view import Diagnostic, Severity, View

RULES = "sdtrt.analysis.rules"
HIGH_PCT, MEDIUM_PCT = 5.0, 1.0
SEVERITIES: tuple[Severity, ...] = ("high", "medium", "low")


@dataclass(frozen=True)
class Finding:
    """One thing that costs time. `cost_ms` is of one run of the engine; a cost that is not known is None."""

    rule: str
    severity: Severity
    title: str
    message: str
    component: str
    layers: tuple[str, ...]
    cost_ms: float | None
    cost_per_image_ms: float | None
    advice: str


@dataclass(frozen=True)
class Rule:
    """One rule with its docstring and the three parts of it. Rules of a lower order run first."""

    name: str
    title: str
    explanation: str
    finds: str
    costs: str
    advice: str
    order: int
    find: Callable[[View], Iterator[Diagnostic]]


@cache
def rules() -> tuple[Rule, ...]:
    """All rules, in the order in which they run."""
    found = [rule for name in registry.names(RULES) for rule in _rules_of(name)]
    return tuple(sorted(found, key=lambda rule: (rule.order, rule.name)))


def findings(views: Sequence[View], budget: Budget) -> tuple[Finding, ...]:
    """The findings of all rules in all engines, by cost of an image; those of unknown cost are last."""
    whole_ms = sum((view.layers_ms or 0) * budget.per_image(view.plan.component) for view in views)
    found = [finding for view in views for finding in _findings_of(view, budget, whole_ms)]
    return tuple(sorted(found, key=_by_cost))


def _rules_of(name: str) -> list[Rule]:
    """The rules of one file: those that its TITLES name, else the file itself as one."""
    module = registry.load(RULES, name)
    if not hasattr(module, "TITLES"):
        return [_rule(name, module.TITLE, module, module.find)]
    functions = ((function, title, getattr(module, function)) for function, title in module.TITLES.items())
    return [_rule(function, title, find, find) for function, title, find in functions]


def _rule(name: str, title: str, documented: object, find: Callable[[View], Iterator[Diagnostic]]) -> Rule:
    explanation = getdoc(documented) or ""
    parts = re.split(r"What it finds:|Why it costs:|What to do:", explanation)[1:]
    finds, costs, advice = map(_sentences, parts)
    return Rule(name, title, explanation, finds, costs, advice, getattr(documented, "ORDER", 0), find)


def _sentences(text: str) -> str:
    joined = " ".join(text.split())
    return joined[:1].upper() + joined[1:]


def _findings_of(view: View, budget: Budget, whole_ms: float) -> Iterator[Finding]:
    component = view.plan.component
    for rule in rules():
        for found in rule.find(view):
            view.reported.update(found.layers)
            per_image = None if found.cost_ms is None else found.cost_ms * budget.per_image(component)
            yield Finding(
                rule=rule.name,
                severity=found.severity or _severity(per_image, whole_ms),
                title=rule.title,
                message=found.message,
                component=component,
                layers=found.layers,
                cost_ms=found.cost_ms,
                cost_per_image_ms=per_image,
                advice=rule.advice,
            )


def _severity(cost_ms: float | None, whole_ms: float) -> Severity:
    pct = 100 * cost_ms / whole_ms if cost_ms is not None and whole_ms else 0
    return "high" if pct >= HIGH_PCT else "medium" if pct >= MEDIUM_PCT else "low"


def _by_cost(finding: Finding) -> tuple[float, float, str, str]:
    costs = (finding.cost_per_image_ms, finding.cost_ms)
    image, run = (float("inf") if cost is None else -cost for cost in costs)
    return image, run, finding.component, finding.rule
