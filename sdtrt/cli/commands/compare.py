"""`sdtrt compare`: two or more engines side by side, and a gate against slowdowns. Needs no torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from sdtrt.cli.console import out, progress
from sdtrt.cli.plan_sources import parse_onnx, parse_shapes
from sdtrt.cli.tables import show_checks, show_comparison
from sdtrt.errors import ConfigError

if TYPE_CHECKING:
    from sdtrt.analysis import Analysis, Check, Comparison
    from sdtrt.plan.layers import Plan

By = Literal["total", "module", "layer"]
EXAMPLES = (
    "Examples:\n\n[bold]sdtrt compare before after --out comparison.html[/]\n\n"
    "[bold]sdtrt compare fp32.engine.graph.json fp16.engine.graph.json int8.engine.graph.json --onnx unet.onnx[/]\n\n"
    "[bold]sdtrt compare main branch --max-regression 3% --by module --junit gate.xml --out comment.md[/]\n\n"
    "[bold]sdtrt compare main/1,main/2,main/3 branch/1,branch/2,branch/3 --max-regression 2%[/]; "
    "exit code 1 when an engine became slower."
)


def run(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="BASELINE CANDIDATE",
            help="Bundles, plan.json files or what trtexec exports; runs of one engine are joined by commas.",
        ),
    ],
    reports: Annotated[
        list[Path] | None, typer.Option("--out", "-o", help="A .html, .md or .json file; may be repeated.")
    ] = None,
    max_regression: Annotated[
        str | None, typer.Option(help='Exit with 1 when a time grew by more, such as "3%", and by more than noise.')
    ] = None,
    by: Annotated[By, typer.Option(help="What is checked besides the whole engine.")] = "total",
    depth: Annotated[int, typer.Option("--module-depth", min=1, help="Steps of a module's path, with --by.")] = 2,
    sigmas: Annotated[float, typer.Option(min=0, help="Standard errors that noise may reach.")] = 3.0,
    junit: Annotated[Path | None, typer.Option(help="Write the checks as JUnit XML.")] = None,
    onnx: Annotated[
        list[str] | None, typer.Option(help="The ONNX file that all were built from; ENGINE=FILE for each of several.")
    ] = None,
    shapes: Annotated[str | None, typer.Option(help='Sizes of its inputs, such as "sample=2x4x64x64".')] = None,
    profile: Annotated[int, typer.Option(min=0, help="Optimization profile that was timed.")] = 0,
) -> None:
    """Compare engines layer by layer, aligned by ONNX nodes; the first is the baseline."""
    from sdtrt.analysis.comparison.gate import parse_percent

    allowed = None if max_regression is None else parse_percent(max_regression)
    if junit and allowed is None:
        raise ConfigError("--junit writes checks, and there are none", slug="no-checks", hint="add --max-regression 3%")
    sizes, graphs = parse_shapes(shapes), parse_onnx(onnx)
    _check_suffixes(reports or ())
    with progress("compare") as say:
        from sdtrt import analysis

        read = partial(analysis.load, onnx=graphs, shapes=sizes, profile=profile)
        sides: list[Sequence[Plan]] = []
        names = _labels(sources)
        for number, source in enumerate(sources):
            say(f"reading {names[number]}", 0.6 * number / len(sources))
            sides.append(_side(source, read))
        say("aligning", 0.6)
        compared = analysis.compare(*sides, names=names)
        checks = () if allowed is None else analysis.gate(compared, allowed, by, depth, sigmas)
        say("writing", 0.8)
        written = _write(compared, checks, reports or (), junit)
    for comparison in compared:
        show_comparison(comparison)
    if checks:
        show_checks(checks)
    for path in written:
        out.print(f"[bold]{path}[/]", soft_wrap=True)
    if any(check.status == "slower" for check in checks):
        raise typer.Exit(1)


def _side(source: str, read: Callable[[Path], Analysis]) -> Sequence[Plan]:
    """Plans of one source; of several runs, each engine with the times of all."""
    from sdtrt.analysis import merge_runs

    paths = [Path(part) for part in source.split(",") if part and not Path(source).exists()] or [Path(source)]
    runs = [read(path).plans for path in paths]
    names = [tuple(plan.component for plan in plans) for plans in runs]
    # One engine may go by the name of its file, which is another for each run.
    if len(set(names)) > 1 and any(len(plans) != 1 for plans in runs):
        raise ConfigError(
            "these are not runs of the same engines",
            slug="runs-differ",
            received="; ".join(map(", ".join, names)),
            hint="separate runs of one engine by commas, other engines by spaces",
        )
    return [merge_runs(plans) for plans in zip(*runs, strict=True)]


def _labels(sources: Sequence[str]) -> list[str]:
    """The sources' names without the folders that all of them lie in."""
    names = [source if Path(source).exists() else source.split(",")[0] for source in sources]
    parts = [Path(name).parts for name in names]
    same = next((i for i, column in enumerate(zip(*parts, strict=False)) if len(set(column)) > 1), -1)
    short = [str(Path(*part[same:])) for part in parts]
    counts = [0 if name == source else source.count(",") + 1 for name, source in zip(names, sources, strict=True)]
    return [f"{name} ({count} runs)" if count else name for name, count in zip(short, counts, strict=True)]


def _check_suffixes(paths: Sequence[Path]) -> None:
    for path in paths:
        if path.suffix.lower() not in (".html", ".md", ".json"):
            raise ConfigError("no such kind of report", slug="report-kind", received=path, expected=".html .md .json")


def _write(
    compared: Sequence[Comparison], checks: Sequence[Check], reports: Sequence[Path], junit: Path | None
) -> list[Path]:
    from sdtrt import analysis
    from sdtrt.analysis.comparison.junit import check_cases, to_junit
    from sdtrt.system.files import write_text

    writers = {
        ".html": analysis.render_comparison,
        ".md": analysis.comparison_to_markdown,
        ".json": analysis.comparison_to_json,
    }
    texts = [(path, writers[path.suffix.lower()](compared, checks)) for path in reports]
    texts += [(junit, to_junit("sdtrt compare", check_cases(checks)))] if junit else []
    for path, text in texts:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, text)
    return [path for path, _ in texts]
