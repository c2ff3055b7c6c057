"""JUnit XML: verdicts in the form that build servers show as tests."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal
from xml.etree import ElementTree as ET  # it writes here and never reads

from sdtrt.analysis.comparison.gate import Check, at_least
from sdtrt.analysis.escape import legal
from sdtrt.analysis.findings import Finding
from sdtrt.analysis.rule_support.view import Severity

MAX_LAYERS = 10


@dataclass(frozen=True)
class Case:
    """One test: `group` is what build servers nest by."""

    group: str
    name: str
    status: Literal["passed", "failed", "skipped"] = "passed"
    message: str = ""
    details: str = ""


def to_junit(suite: str, cases: Sequence[Case]) -> str:
    """The cases as one suite."""
    counts = {
        "tests": str(len(cases)),
        "failures": str(sum(case.status == "failed" for case in cases)),
        "errors": "0",
        "skipped": str(sum(case.status == "skipped" for case in cases)),
    }
    root = ET.Element("testsuites", {"name": "sdtrt", **counts})
    parent = ET.SubElement(root, "testsuite", {"name": legal(suite), **counts})
    for case in cases:
        names = {"classname": legal(case.group), "name": legal(case.name), "time": "0"}
        element = ET.SubElement(parent, "testcase", names)
        if case.status == "failed":
            ET.SubElement(element, "failure", {"message": legal(case.message)}).text = legal(case.details)
        elif case.status == "skipped":
            ET.SubElement(element, "skipped", {"message": legal(case.message)})
        elif case.message:
            ET.SubElement(element, "system-out").text = legal(case.message)
    ET.indent(root)
    return f'<?xml version="1.0" encoding="utf-8"?>\n{ET.tostring(root, encoding="unicode")}\n'


def check_cases(checks: Iterable[Check]) -> list[Case]:
    """One case per engine, module or layer that was compared."""
    verdicts: dict[str, Literal["passed", "failed", "skipped"]]
    verdicts = {"ok": "passed", "slower": "failed", "not compared": "skipped"}
    return [Case(f"{c.candidate}.{c.component}", c.what, verdicts[c.status], c.reason, c.reason) for c in checks]


def finding_cases(findings: Sequence[Finding], rules: Iterable[str], severity: Severity) -> list[Case]:
    """One case per rule and engine; a rule fails where it found something of this severity or above."""
    cases = []
    for rule in sorted({*rules, *(f.rule for f in findings)}):
        found = [f for f in findings if f.rule == rule]
        for component in dict.fromkeys(f.component for f in found):
            here = [f for f in found if f.component == component]
            failed = at_least(here, severity)
            message = "; ".join(f"{f.severity}: {f.title}" for f in failed or here)
            details = "\n\n".join(map(_explained, failed))
            cases.append(Case(component, rule, "failed" if failed else "passed", message, details))
        if not found:
            cases.append(Case("all engines", rule))
    return cases


def _explained(finding: Finding) -> str:
    layers = [*finding.layers[:MAX_LAYERS], *(["..."] if len(finding.layers) > MAX_LAYERS else [])]
    return "\n".join((finding.title, finding.message, finding.advice, *layers))
