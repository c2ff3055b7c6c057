"""Every rule, on its own cases: cases/ has engines in which it finds something or nothing."""

from __future__ import annotations

import re

import pytest
from rule_engines import CASES, DEVICE, cases_by_rule

from sdtrt import registry
from sdtrt.analysis.findings import RULES, rules
from sdtrt.analysis.image_budget import Budget, BudgetRow
from sdtrt.analysis.session import Analysis

NAMES = [rule.name for rule in rules()]
STEPS = 20


def analysis(plan, peaks=DEVICE):
    """As a pipeline runs it: the U-Net 20 times for an image, the others once."""
    calls = STEPS if plan.component == "unet" else 1
    made = Analysis((plan,), peaks=peaks)
    made.__dict__["budget"] = Budget((BudgetRow(plan.component, calls, None, None),), None, STEPS, assumed=False)
    return made


def cases(name, kind):
    return cases_by_rule(kind).get(name, [])


def each(kind):
    return [pytest.param(name, case, id=f"{name}-{i}") for name in NAMES for i, case in enumerate(cases(name, kind))]


@pytest.mark.parametrize("name", NAMES)
def test_has_cases_in_which_it_finds_something_and_in_which_it_does_not(name):
    assert cases(name, "FIRES"), f"write the cases of {name} in tests/analysis/rules/cases"
    assert cases(name, "QUIET")


def test_no_cases_are_left_of_a_rule_that_is_gone():
    assert registry.names(CASES) == registry.names(RULES)
    assert set(cases_by_rule("FIRES")) == set(cases_by_rule("QUIET")) == set(NAMES)


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule.name)
def test_says_what_it_finds_why_it_costs_and_what_to_do(rule):
    assert all(re.match(r"[A-Z].*\.$", text) for text in (rule.finds, rule.costs, rule.advice))
    assert "Cost:" in rule.costs
    assert rule.title


@pytest.mark.parametrize(("name", "case"), each("FIRES"))
def test_finds_it_and_its_cost(name, case):
    (found,) = (finding for finding in analysis(case.plan).findings if finding.rule == name)
    assert found.cost_ms == (None if case.cost_ms is None else pytest.approx(case.cost_ms))
    assert found.layers == case.layers
    for words in case.says:
        assert words in found.message


@pytest.mark.parametrize(("name", "case"), each("FIRES"))
def test_never_costs_more_than_was_measured(name, case):
    times = {layer.name: layer.time_ms or 0 for layer in case.plan.layers}
    for found in analysis(case.plan).findings:
        assert (found.cost_ms or 0) <= sum(times[layer] for layer in found.layers) * (1 + 1e-9)


@pytest.mark.parametrize(("name", "case"), each("QUIET"))
def test_leaves_the_rest_alone(name, case):
    assert [finding for finding in analysis(case.plan).findings if finding.rule == name] == []
