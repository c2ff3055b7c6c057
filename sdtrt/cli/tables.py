"""Tables of `sdtrt analyze` and `sdtrt compare`, at most 80 columns wide; names from files are sanitized."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.markup import escape

from sdtrt.cli.console import format_bytes, out, table

if TYPE_CHECKING:
    from sdtrt.analysis import Analysis, Check, Comparison

MAX_ROWS = 5
MAX_NOTES = 4
NAME_LENGTH = 44
COLORS = {"high": "red", "medium": "yellow", "low": "dim"}


def sanitize(text: str, length: int = NAME_LENGTH) -> str:
    """A name on one line without control characters and markup, shortened in the middle to `length` characters."""
    from sdtrt.analysis.escape import legal

    line = " ".join(legal(text).split())
    if len(line) > length:
        line = f"{line[: length // 3]}…{line[length // 3 + 1 - length :]}"
    return escape(line)


def show_analysis(analysis: Analysis) -> None:
    """Print totals, memory, the reader's notes, the most expensive findings, and the slowest modules or layers."""
    _totals(analysis)
    _memory(analysis)
    _notes(analysis)
    _findings(analysis)
    _slowest(analysis)


def _totals(analysis: Analysis) -> None:
    from sdtrt.analysis.summary import number

    labels = {"layers": "Layers", "wall": "Wall time, median", "sum of layers": "Sum of layers"}
    labels |= {"work": "Work", "achieved": "Achieved"}
    grid = table("engine", *labels, numbers=tuple(labels))
    for summary in analysis.summaries:
        facts = summary.facts()
        cells = (facts[label].partition(", ")[0] for label in labels.values())
        grid.add_row(sanitize(summary.component, 16), *cells)
    out.print(grid)
    budget = analysis.budget
    if budget.whole == "image" and budget.total_ms is not None:
        calls = f"calls assumed, {budget.steps} steps" if budget.assumed else f"recorded, {budget.steps} steps"
        out.print(f"\nOne image: [bold]{number(budget.total_ms / budget.images, 'ms')}[/] ({calls})")


def _memory(analysis: Analysis) -> None:
    """Memory of the engines; a column that is unknown for all engines is left out."""
    names = ("files", "weights", "activations", "at most", "context")
    columns = dict(zip(names, zip(*(row.figures() for row in analysis.memory), strict=True), strict=False))
    known = {name: counts for name, counts in columns.items() if set(counts) != {None}}
    if not known:
        return
    grid = table("memory of", *known, numbers=tuple(known))
    profiles = list(dict.fromkeys(row.profile for row in analysis.memory))
    for row, *counts in zip(analysis.memory, *known.values(), strict=True):
        number = f", profile {profiles.index(row.profile) + 1}" if len(profiles) > 1 else ""
        grid.add_row(f"{sanitize(row.component, 16)}{number}", *map(format_bytes, counts))
    out.print()
    out.print(grid)
    for index, profile in enumerate(profiles if len(profiles) > 1 else (), 1):
        out.print(f"profile {index}: {sanitize(profile or 'unknown', 200)}", soft_wrap=True)


def _notes(analysis: Analysis) -> None:
    notes = [(plan.component, note) for plan in analysis.plans for note in plan.notes]
    for component, note in notes[:MAX_NOTES]:
        out.print(f"[yellow]note[/] {sanitize(component, 16)}: {sanitize(note, 240)}")
    if len(notes) > MAX_NOTES:
        out.print(f"[yellow]note[/] {len(notes) - MAX_NOTES} more are in the report, under Coverage")


def _findings(analysis: Analysis) -> None:
    from sdtrt.analysis.summary import number

    findings = analysis.findings
    if not findings:
        return
    out.print(f"\n[bold]Findings[/], {min(MAX_ROWS, len(findings))} of {len(findings)}, the most expensive first")
    unit = f"ms per {analysis.budget.whole}"
    grid = table("severity", unit, "finding", numbers=(unit,))
    for finding in findings[:MAX_ROWS]:
        cost = number(finding.cost_per_image_ms)
        color = COLORS[finding.severity]
        grid.add_row(f"[{color}]{finding.severity}[/]", cost, sanitize(f"{finding.component}: {finding.title}", 54))
    out.print(grid)


def _slowest(analysis: Analysis) -> None:
    from sdtrt.analysis.comparison.gate import MODULE_DEPTH
    from sdtrt.analysis.module_paths import NO_MODULE, module_at
    from sdtrt.analysis.summary import number

    timed = analysis.frame.dropna(subset=["time_ms"])
    if timed.empty:
        return
    if timed["module"].isna().all():
        kind, parts = "layer", timed["name"]
    else:
        kind, parts = "module", timed["module"].fillna(NO_MODULE).map(lambda name: module_at(name, MODULE_DEPTH))
    sums = timed.groupby([timed["component"], parts.rename("part")])["time_ms"].sum().reset_index()
    whole = analysis.budget.whole
    sums["per_whole"] = sums["time_ms"] * sums["component"].map(analysis.budget.per_image)
    out.print(f"\n[bold]Slowest {kind}s[/], by their time in one {whole}")
    grid = table(kind, f"ms per {whole}", "profiled ms", "engine", numbers=(f"ms per {whole}", "profiled ms"))
    top = sums.nlargest(MAX_ROWS, "per_whole")[["part", "per_whole", "time_ms", "component"]]
    for part, per_whole, time_ms, component in top.to_numpy(dtype=object).tolist():
        grid.add_row(sanitize(part, 36), number(per_whole), number(time_ms), sanitize(component, 16))
    out.print(grid)


def show_comparison(comparison: Comparison) -> None:
    """Print the totals of each engine and the modules that changed most."""
    from sdtrt.analysis.comparison.text import figures, largest_changes, totals_of

    numbers = ("before", "after", "ms", "%", "speed-up")
    out.print(f"[bold]{sanitize(comparison.baseline, 34)}[/] → [bold]{sanitize(comparison.candidate, 34)}[/]")
    grid = table("", *numbers, numbers=numbers)
    for engine in comparison.engines:
        for label, change in totals_of(engine):
            grid.add_row(f"{sanitize(engine.component, 22)}, {label}", *figures(change))
        for row in largest_changes(engine, MAX_ROWS)[1]:
            grid.add_row(f"  {sanitize(row.name, 30)}", *figures(row))
    out.print(grid)
    for engine in comparison.engines:
        for difference in engine.differences:
            out.print(f"[yellow]differs[/] {sanitize(engine.component, 24)}: {sanitize(difference, 160)}")
    for side, names in (("baseline", comparison.removed), ("candidate", comparison.added)):
        if names:
            out.print(f"only in the {side}: {', '.join(map(sanitize, names))}")


def show_checks(checks: Sequence[Check]) -> None:
    """Print which checks failed, and how many."""
    failed = [check for check in checks if check.status == "slower"]
    unknown = sum(check.status != "not compared" and check.noise_ms is None for check in checks)
    for check in failed[:MAX_ROWS]:
        where = f"{sanitize(check.candidate, 20)} {sanitize(check.component, 20)}"
        out.print(f"[red]slower[/] {where} [bold]{sanitize(check.what)}[/]: {check.reason}")
    color, verdict = (
        ("red", f"{len(failed)} of {len(checks)} failed") if failed else ("green", f"all {len(checks)} passed")
    )
    noise = f"; the noise of {unknown} is unknown: single figures" if unknown else ""
    out.print(f"checks: [{color}]{verdict}[/]{noise}")
