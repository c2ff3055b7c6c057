"""`sdtrt analyze`: where the time of an engine goes. Needs no torch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sdtrt.cli.console import out, progress, table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sdtrt.plan import Plan

EXAMPLES = (
    "Examples:\n\n[bold]sdtrt analyze bundle --out report.html[/]\n\n"
    "[bold]sdtrt analyze bundle/unet/plan.json --out unet.csv[/]"
)


def run(
    source: Annotated[Path, typer.Argument(help="A bundle, or a plan.json.")],
    report: Annotated[Path, typer.Option("--out", "-o", help="A .html, .json, .csv or .md file.")] = Path(
        "report.html"
    ),
) -> None:
    """Write a report on the engines of a bundle: totals, time by kind and module, slowest layers."""
    write(source, report)


def write(source: Path, report: Path) -> None:
    """Write the report and print its totals."""
    from sdtrt import analysis
    from sdtrt.errors import ConfigError
    from sdtrt.store import write_text

    plans, manifest = analysis.load_plans(source)
    suffix, writers = report.suffix.lower(), {".json": analysis.to_json, ".csv": analysis.to_csv}
    writers |= {".md": analysis.to_markdown, ".html": lambda plans: analysis.render(plans, manifest)}
    if suffix not in writers:
        raise ConfigError("no such kind of report", slug="report-kind", received=report, expected=" ".join(writers))
    with progress("analyze") as say:
        say("writing the report", 0.1)
        report.parent.mkdir(parents=True, exist_ok=True)
        write_text(report, writers[suffix](plans))
    show_summary(plans)
    out.print(f"[bold]{report}[/]", soft_wrap=True)


def show_summary(plans: Sequence[Plan]) -> None:
    """One line per engine: layers, time, work."""
    from sdtrt.analysis import summarize

    shown = ("Layers", "Wall time, median", "Work", "Achieved")
    grid = table("Engine", *shown, numbers=shown)
    for plan in plans:
        facts = summarize(plan).facts()
        grid.add_row(plan.component, *(facts[label] for label in shown))
    out.print(grid)
