"""`sdtrt analyze`: where the time of an engine goes. Needs no torch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sdtrt.cli.console import out, progress, table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sdtrt.plan import Plan
    from sdtrt.store import Manifest

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

    suffix = report.suffix.lower()
    if suffix not in (".html", ".json", ".csv", ".md"):
        raise ConfigError(
            "no such kind of report", slug="report-kind", received=report, expected=".html .json .csv .md"
        )
    plans, manifest = analysis.load_plans(source)
    with progress("analyze") as say:
        say("writing the report", 0.1)
        text = _render(plans, manifest, suffix)
        report.parent.mkdir(parents=True, exist_ok=True)
        write_text(report, text)
    show_summary(plans)
    out.print(f"[bold]{report}[/]", soft_wrap=True)


def _render(plans: Sequence[Plan], manifest: Manifest | None, suffix: str) -> str:
    from sdtrt import analysis

    if suffix == ".html":
        return analysis.render(plans, manifest)
    writers = {".json": analysis.to_json, ".csv": analysis.to_csv, ".md": analysis.to_markdown}
    return writers[suffix](plans)


def show_summary(plans: Sequence[Plan]) -> None:
    """One line per engine: layers, time, work."""
    from sdtrt.analysis import summarize

    shown = ("Layers", "Wall time, median", "Work", "Achieved")
    grid = table("Engine", *shown, numbers=shown)
    for plan in plans:
        facts = summarize(plan).facts()
        grid.add_row(plan.component, *(facts[label] for label in shown))
    out.print(grid)
