"""`sdtrt compare`: engines side by side, and checks against slowdowns. Needs no torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from sdtrt.cli import options
from sdtrt.cli.console import out, progress
from sdtrt.cli.plan_sources import check_suffixes, make_parent_folders, parse_onnx, parse_shapes
from sdtrt.cli.tables import show_checks, show_comparison
from sdtrt.errors import ConfigError

if TYPE_CHECKING:
    from sdtrt.analysis import Analysis, Check, Comparison
    from sdtrt.plan.layers import Plan

By = Literal["total", "module", "layer"]
EXAMPLES = (
    "Examples:\n\n[bold]sdtrt compare before after --out comparison.html[/]\n\n"
    "[bold]sdtrt compare fp32.engine.graph.json fp16.engine.graph.json int8.engine.graph.json --onnx unet.onnx[/]\n\n"
    "[bold]sdtrt compare main branch --max-regression 3% --by module --junit checks.xml --out comment.md[/]\n\n"
    "[bold]sdtrt compare main/1,main/2,main/3 branch/1,branch/2,branch/3 --max-regression 2%[/]; "
    "exit code 1 when an engine became slower."
)


def run(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="BASELINE CANDIDATE",
            help="Bundles, plan.json files, or JSON files that trtexec exports; commas separate runs of one engine.",
        ),
    ],
    reports: Annotated[
        list[Path] | None, typer.Option("--out", "-o", help="Report: .html, .md or .json; may be repeated.")
    ] = None,
    max_regression: Annotated[
        str | None, typer.Option(help='Exit with 1 when a time grew by more than this, such as "3%", and than noise.')
    ] = None,
    by: Annotated[By, typer.Option(help="What --max-regression checks besides whole engines.")] = "total",
    depth: Annotated[int, typer.Option("--module-depth", min=1, help="Depth of the modules of --by module.")] = 2,
    sigmas: Annotated[float, typer.Option(min=0, help="Standard errors of a time that count as noise.")] = 3.0,
    junit: Annotated[Path | None, typer.Option(help="Write the checks as JUnit XML.")] = None,
    onnx: options.OnnxFiles = None,
    shapes: options.InputShapes = None,
    profile: options.OptimizationProfile = 0,
) -> None:
    """Compare engines layer by layer, aligned by ONNX nodes; the first is the baseline."""
    from sdtrt.analysis.comparison.gate import parse_percent

    allowed = None if max_regression is None else parse_percent(max_regression)
    if junit and allowed is None:
        raise ConfigError("--junit writes checks, and there are none", slug="no-checks", hint="add --max-regression 3%")
    input_shapes, onnx_files = parse_shapes(shapes), parse_onnx(onnx)
    files = [(path.suffix.lower(), path) for path in reports or ()]
    check_suffixes(files, (".html", ".md", ".json"))
    with progress("compare") as update:
        from sdtrt import analysis

        read = partial(analysis.load, onnx=onnx_files, shapes=input_shapes, profile=profile)
        sides: list[Sequence[Plan]] = []
        names = _labels(sources)
        for number, source in enumerate(sources):
            update(f"reading {names[number]}", 0.6 * number / len(sources))
            sides.append(_read_source(source, read))
        update("aligning", 0.6)
        comparisons = analysis.compare(*sides, names=names)
        checks = () if allowed is None else analysis.gate(comparisons, allowed, by, depth, sigmas)
        update("writing", 0.8)
        _write(comparisons, checks, files, junit)
    for comparison in comparisons:
        show_comparison(comparison)
    if checks:
        show_checks(checks)
    for path in (*(reports or ()), junit):
        if path:
            out.print(f"[bold]{path}[/]", soft_wrap=True)
    if any(check.status == "slower" for check in checks):
        raise typer.Exit(1)


def _read_source(source: str, read: Callable[[Path], Analysis]) -> Sequence[Plan]:
    """Layer plans of one source; several runs, separated by commas, are merged into one plan per engine."""
    from sdtrt.analysis import merge_runs

    paths = [Path(part) for part in source.split(",") if part and not Path(source).exists()] or [Path(source)]
    runs = [read(path).plans for path in paths]
    names = [tuple(plan.component for plan in plans) for plans in runs]
    # An engine without a component name is named after its file, which differs between runs.
    if len(set(names)) > 1 and any(len(plans) != 1 for plans in runs):
        raise ConfigError(
            "these are not runs of the same engines",
            slug="runs-differ",
            received="; ".join(map(", ".join, names)),
            hint="separate runs of one engine by commas, other engines by spaces",
        )
    return [merge_runs(plans) for plans in zip(*runs, strict=True)]


def _labels(sources: Sequence[str]) -> list[str]:
    """The sources' names without the folders that they have in common."""
    names = [source if Path(source).exists() else source.split(",")[0] for source in sources]
    parts = [Path(name).parts for name in names]
    same = next((i for i, column in enumerate(zip(*parts, strict=False)) if len(set(column)) > 1), -1)
    short = [str(Path(*part[same:])) for part in parts]
    counts = [0 if name == source else source.count(",") + 1 for name, source in zip(names, sources, strict=True)]
    return [f"{name} ({count} runs)" if count else name for name, count in zip(short, counts, strict=True)]


def _write(
    comparisons: Sequence[Comparison], checks: Sequence[Check], files: Sequence[tuple[str, Path]], junit: Path | None
) -> None:
    from sdtrt import analysis
    from sdtrt.analysis.comparison.junit import check_cases, to_junit
    from sdtrt.system.files import write_text

    writers = {
        ".html": analysis.render_comparison,
        ".md": analysis.comparison_to_markdown,
        ".json": analysis.comparison_to_json,
    }
    make_parent_folders((*(path for _, path in files), junit))
    for suffix, path in files:
        write_text(path, writers[suffix](comparisons, checks))
    if junit:
        write_text(junit, to_junit("sdtrt compare", check_cases(checks)))
