"""What `analyze` and `compare` print: short tables that fit 80 columns. Names from files are made harmless first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.markup import escape

from sdtrt.cli.console import out, size, table

if TYPE_CHECKING:
    from sdtrt.analysis import Analysis, Check, Comparison

TOP = 5
NOTES = 4
NAME = 44
COLORS = {"high": "red", "medium": "yellow", "low": "dim"}


def safe(text: str, length: int = NAME) -> str:
    """A name in one line without control characters or markup, cut in the middle to `length`."""
    from sdtrt.analysis.escape import legal

    line = " ".join(legal(text).split())
    if len(line) > length:
        line = f"{line[: length // 3]}…{line[length // 3 + 1 - length :]}"
    return escape(line)


def show_analysis(analysis: Analysis) -> None:
    """Totals, memory, what could not be read, the dearest findings, and the slowest modules or layers."""
    _totals(analysis)
    _memory(analysis)
    _notes(analysis)
    _findings(analysis)
    _slowest(analysis)


def _totals(analysis: Analysis) -> None:
    from sdtrt.analysis.summary import number

    shown = {"layers": "Layers", "wall": "Wall time, median", "sum of layers": "Sum of layers"}
    shown |= {"work": "Work", "achieved": "Achieved"}
    grid = table("engine", *shown, numbers=tuple(shown))
    for summary in analysis.summaries:
        facts = summary.facts()
        grid.add_row(safe(summary.component, 16), *(facts[label].partition(", ")[0] for label in shown.values()))
    out.print(grid)
    budget = analysis.budget
    if budget.whole == "image" and budget.total_ms is not None:
        calls = f"calls assumed, {budget.steps} steps" if budget.assumed else f"recorded, {budget.steps} steps"
        out.print(f"\nOne image: [bold]{number(budget.total_ms / budget.images, 'ms')}[/] ({calls})")


def _memory(analysis: Analysis) -> None:
    """What the engines take, without figures that are known of none of them."""
    names = ("files", "weights", "activations", "at most", "context")
    columns = dict(zip(names, zip(*(row.figures() for row in analysis.memory), strict=True), strict=False))
    shown = {name: counts for name, counts in columns.items() if set(counts) != {None}}
    if not shown:
        return
    grid = table("memory of", *shown, numbers=tuple(shown))
    profiles = list(dict.fromkeys(row.profile for row in analysis.memory))
    for row, *counts in zip(analysis.memory, *shown.values(), strict=True):
        number = f", profile {profiles.index(row.profile) + 1}" if len(profiles) > 1 else ""
        grid.add_row(f"{safe(row.component, 16)}{number}", *map(size, counts))
    out.print()
    out.print(grid)
    for index, profile in enumerate(profiles if len(profiles) > 1 else (), 1):
        out.print(f"profile {index}: {safe(profile or 'unknown', 200)}", soft_wrap=True)


def _notes(analysis: Analysis) -> None:
    notes = [(plan.component, note) for plan in analysis.plans for note in plan.notes]
    for component, note in notes[:NOTES]:
        out.print(f"[yellow]note[/] {safe(component, 16)}: {safe(note, 240)}")
    if len(notes) > NOTES:
        out.print(f"[yellow]note[/] {len(notes) - NOTES} more are in the report, under Coverage")


def _findings(analysis: Analysis) -> None:
    from sdtrt.analysis.summary import number

    found = analysis.findings
    if not found:
        return
    out.print(f"\n[bold]Findings[/], {min(TOP, len(found))} of {len(found)}, the dearest first")
    unit = f"ms per {analysis.budget.whole}"
    grid = table("severity", unit, "finding", numbers=(unit,))
    for finding in found[:TOP]:
        cost = number(finding.cost_per_image_ms)
        color = COLORS[finding.severity]
        grid.add_row(f"[{color}]{finding.severity}[/]", cost, safe(f"{finding.component}: {finding.title}", 54))
    out.print(grid)


def _slowest(analysis: Analysis) -> None:
    from sdtrt.analysis.comparison.gate import MODULE_DEPTH
    from sdtrt.analysis.module_paths import NO_MODULE, module_at
    from sdtrt.analysis.summary import number

    timed = analysis.frame.dropna(subset=["time_ms"])
    if timed.empty:
        return
    what = "layer" if timed["module"].isna().all() else "module"
    parts = (
        timed["name"]
        if what == "layer"
        else timed["module"].fillna(NO_MODULE).map(lambda name: module_at(name, MODULE_DEPTH))
    )
    sums = timed.groupby([timed["component"], parts.rename("part")])["time_ms"].sum().reset_index()
    whole = analysis.budget.whole
    sums["per_whole"] = sums["time_ms"] * sums["component"].map(analysis.budget.per_image)
    out.print(f"\n[bold]Slowest {what}s[/], by their time in one {whole}")
    grid = table(what, f"ms per {whole}", "profiled ms", "engine", numbers=(f"ms per {whole}", "profiled ms"))
    top = sums.nlargest(TOP, "per_whole")[["part", "per_whole", "time_ms", "component"]]
    for part, per_whole, time_ms, component in top.to_numpy(dtype=object).tolist():
        grid.add_row(safe(part, 36), number(per_whole), number(time_ms), safe(component, 16))
    out.print(grid)


def show_comparison(comparison: Comparison) -> None:
    """Totals of each engine and the modules that changed most."""
    from sdtrt.analysis.comparison.text import figures, largest_changes, totals_of

    numbers = ("before", "after", "ms", "%", "speed-up")
    out.print(f"[bold]{safe(comparison.baseline, 34)}[/] → [bold]{safe(comparison.candidate, 34)}[/]")
    grid = table("", *numbers, numbers=numbers)
    for engine in comparison.engines:
        for what, change in totals_of(engine):
            grid.add_row(f"{safe(engine.component, 22)}, {what}", *figures(change))
        for row in largest_changes(engine, TOP)[1]:
            grid.add_row(f"  {safe(row.name, 30)}", *figures(row))
    out.print(grid)
    for engine in comparison.engines:
        for difference in engine.differences:
            out.print(f"[yellow]not alike[/] {safe(engine.component, 24)}: {safe(difference, 160)}")
    for side, names in (("baseline", comparison.removed), ("candidate", comparison.added)):
        if names:
            out.print(f"only in the {side}: {', '.join(map(safe, names))}")


def show_checks(checks: Sequence[Check]) -> None:
    """How many checks failed, and which."""
    failed = [check for check in checks if check.status == "slower"]
    unknown = sum(check.status != "not compared" and check.noise_ms is None for check in checks)
    for check in failed[:TOP]:
        where = f"{safe(check.candidate, 20)} {safe(check.component, 20)}"
        out.print(f"[red]slower[/] {where} [bold]{safe(check.what)}[/]: {check.reason}")
    color, verdict = (
        ("red", f"{len(failed)} of {len(checks)} failed") if failed else ("green", f"all {len(checks)} passed")
    )
    noise = f"; the noise of {unknown} is unknown: single figures" if unknown else ""
    out.print(f"checks: [{color}]{verdict}[/]{noise}")
