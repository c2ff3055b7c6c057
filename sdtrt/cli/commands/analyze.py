"""`sdtrt analyze`: where the time of an engine goes. Needs no torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, get_args

import typer

from sdtrt.cli.console import out, progress
from sdtrt.cli.plan_sources import only, parse_onnx, parse_shapes, single
from sdtrt.cli.tables import show_analysis
from sdtrt.errors import ConfigError

if TYPE_CHECKING:
    from sdtrt.analysis import Analysis
    from sdtrt.plan.layers import Plan

Say = Callable[[str, float], None]
Color = Literal["type", "precision"]
FailOn = Literal["high", "medium", "low"]
PICTURES = ("svg", "png", "dot")
EXAMPLES = (
    "Examples:\n\n[bold]sdtrt analyze bundle --out report.html[/]\n\n"
    "[bold]sdtrt analyze bundle/unet/plan.json --out unet.csv[/]\n\n"
    "[bold]sdtrt analyze unet.engine.graph.json --onnx unet.onnx "
    '--shapes "sample=2x4x64x64,encoder_hidden_states=2x77x768" --xlsx unet.xlsx[/]\n\n'
    "[bold]sdtrt analyze bundle --component unet --graph unet.svg --module-depth 2[/]\n\n"
    '[bold]sdtrt analyze --profile-engine unet.plan --shapes "sample=2x4x64x64"[/]\n\n'
    "[bold]sdtrt analyze bundle --md report.md --junit findings.xml --fail-on high[/]"
)


def run(
    sources: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="SOURCE", help="A bundle, a plan.json, or what trtexec exports; several are one report."
        ),
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", help="A .html, .json, .csv, .md or .xlsx file; report.html if no file is asked for."
        ),
    ] = None,
    json: Annotated[Path | None, typer.Option("--json", help="Write everything as JSON.")] = None,
    csv: Annotated[Path | None, typer.Option("--csv", help="Write the layer table as CSV.")] = None,
    md: Annotated[Path | None, typer.Option("--md", help="Write a short report as Markdown.")] = None,
    xlsx: Annotated[Path | None, typer.Option("--xlsx", help="Write all tables as an Excel workbook.")] = None,
    component: Annotated[list[str] | None, typer.Option(help="Only this engine; may be repeated.")] = None,
    onnx: Annotated[
        list[str] | None,
        typer.Option(help="The ONNX file that the engine was built from; ENGINE=FILE for each of several."),
    ] = None,
    shapes: Annotated[str | None, typer.Option(help='Sizes of its inputs, such as "sample=2x4x64x64".')] = None,
    profile: Annotated[int, typer.Option(min=0, help="Optimization profile that was timed.")] = 0,
    image: Annotated[Path | None, typer.Option("--run", help="A timed image, by sdtrt generate --record.")] = None,
    peaks: Annotated[Path | None, typer.Option(help="Measured peak rates of the device, as JSON.")] = None,
    graph: Annotated[Path | None, typer.Option(help="Draw the engine: a .svg, .png or .dot file.")] = None,
    around: Annotated[str | None, typer.Option(help="Draw what is near this layer (name or number).")] = None,
    query: Annotated[str | None, typer.Option(help="Draw the layers that match this regular expression.")] = None,
    radius: Annotated[int | None, typer.Option(min=0, help="Steps from the layer or the matches.")] = None,
    depth: Annotated[int | None, typer.Option("--module-depth", min=1, help="Draw one box per module.")] = None,
    color: Annotated[Color, typer.Option(help="What the colors of the drawing stand for.")] = "type",
    netron: Annotated[Path | None, typer.Option(help="Write the engine as an .onnx file for Netron.")] = None,
    fail_on: Annotated[FailOn | None, typer.Option(help="Exit with 1 when a finding is as severe as this.")] = None,
    junit: Annotated[Path | None, typer.Option(help="Write the rules' results as JUnit XML.")] = None,
    engine: Annotated[
        Path | None,
        typer.Option("--profile-engine", help="Time this TensorRT plan at --shapes and analyze that."),
    ] = None,
    runs: Annotated[int, typer.Option(min=1, help="Timed runs, with --profile-engine.")] = 20,
) -> None:
    """Explain engines: where the time goes, what limits each layer, what could be saved."""
    files = [(path.suffix.lower(), path) for path in (report,) if path]
    files += [(s, p) for s, p in ((".json", json), (".csv", csv), (".md", md), (".xlsx", xlsx)) if p]
    parts = [given for given in (around, query, depth) if given is not None]
    if len(parts) > 1 or (parts and graph is None):
        raise ConfigError(
            "one of --around, --query and --module-depth, together with --graph, says what to draw",
            slug="graph-options",
            received=f"{len(parts)} of them, {'with' if graph else 'without'} --graph",
        )
    if radius is not None and around is None and query is None:
        raise ConfigError(
            "--radius counts from --around or --query", slug="graph-options", received=f"--radius {radius}"
        )
    _check_suffixes(files, graph)
    sizes, graphs = parse_shapes(shapes), parse_onnx(onnx)
    asked = any((files, graph, netron, junit))
    sources = _sources(sources, engine)
    with progress("analyze") as say:
        if engine:
            say(f"timing {engine.name}", 0.0)
            sources = [_timed(engine, sizes or {}, runs)]
            # The plan was run at these; only an ONNX file that is joined to it needs them again.
            sizes = sizes if graphs else None
        say("reading", 0.0)
        from sdtrt.analysis import load

        one = sources[0] if len(sources) == 1 else sources
        analysis = load(one, onnx=graphs, shapes=sizes, profile=profile, run=image, peaks=peaks)
        analysis = only(analysis, component or ())
        written = _write(analysis, files if asked else [(".html", Path("report.html"))], say)
        if graph:
            say("drawing", 0.6)
            written.append(_draw(_part(single(analysis, "--graph"), around, query, radius, depth), graph, color))
        if netron:
            say("writing the graph for Netron", 0.8)
            written.append(_netron(single(analysis, "--netron"), netron))
        if junit:
            written.append(_junit(analysis, junit, fail_on or "high"))
        say("summing up", 0.9)
        analysis.findings  # noqa: B018 (computed while the bar is shown)
    show_analysis(analysis)
    out.print()
    for path in written:
        out.print(f"[bold]{path}[/]", soft_wrap=True)
    _gate(analysis, fail_on)


def _sources(given: list[Path] | None, engine: Path | None) -> list[Path]:
    if bool(given) == bool(engine):
        raise ConfigError(
            "either SOURCE or --profile-engine says what to analyze",
            slug="analyze-source",
            received="both" if given else "neither",
            hint="sdtrt analyze bundle, or sdtrt analyze --profile-engine unet.plan --shapes sample=2x4x64x64",
        )
    return given or []


def _timed(engine: Path, sizes: dict[str, tuple[int, ...]], runs: int) -> Path:
    """Time a plan file, write the files of trtexec and the plan beside it, and return the plan's path."""
    from sdtrt import engines
    from sdtrt.engines.backends.tensorrt.engine import BACKEND, profile_plan_file

    engines.require(BACKEND.name)
    path = engine.with_name(f"{engine.stem}.plan.json")
    profile_plan_file(engine, sizes, runs, engine.parent).save(path)
    return path


def write(source: Path, report: Path, peaks: Path | None = None, image: Path | None = None) -> None:
    """Write one report and print its totals."""
    _check_suffixes([(report.suffix.lower(), report)], None)
    with progress("analyze") as say:
        say("reading", 0.0)
        from sdtrt.analysis import load

        analysis = load(source, peaks=peaks, run=image)
        _write(analysis, [(report.suffix.lower(), report)], say)
    show_analysis(analysis)
    out.print(f"[bold]{report}[/]", soft_wrap=True)


def _check_suffixes(files: Sequence[tuple[str, Path]], graph: Path | None) -> None:
    """Before anything is read: a wrong name must not cost a minute."""
    kinds = (".html", ".json", ".csv", ".md", ".xlsx")
    for suffix, path in files:
        if suffix not in kinds:
            raise ConfigError("no such kind of report", slug="report-kind", received=path, expected=" ".join(kinds))
    if graph and graph.suffix[1:].lower() not in PICTURES:
        expected = " ".join(f".{picture}" for picture in PICTURES)
        raise ConfigError("no such kind of picture", slug="picture-kind", received=graph, expected=expected)


def _write(analysis: Analysis, files: Sequence[tuple[str, Path]], say: Say) -> list[Path]:
    from sdtrt import analysis as reports
    from sdtrt.system.files import write_text

    writers = {
        ".html": reports.render,
        ".json": reports.to_json,
        ".csv": reports.to_csv,
        ".md": reports.to_markdown,
    }
    for number, (suffix, path) in enumerate(files):
        say(f"writing {path.name}", 0.1 + 0.5 * number / len(files))
        path.parent.mkdir(parents=True, exist_ok=True)
        if suffix == ".xlsx":
            reports.to_xlsx(analysis, path)
        else:
            write_text(path, writers[suffix](analysis))
    return [path for _, path in files]


def _part(plan: Plan, around: str | None, query: str | None, radius: int | None, depth: int | None) -> Plan:
    from sdtrt.analysis.graph import draw

    reach = {} if radius is None else {"radius": radius}
    if around is not None:
        return draw.around(plan, int(around) if around.isdecimal() else around, **reach)
    if query is not None:
        return draw.subgraph(plan, query, **reach)
    return plan if depth is None else draw.by_module(plan, depth)


def _draw(plan: Plan, path: Path, color: Color) -> Path:
    from sdtrt.analysis.graph import draw

    formatter = {"type": draw.layer_type_formatter, "precision": draw.precision_formatter}[color]
    path.parent.mkdir(parents=True, exist_ok=True)
    fmt = next(picture for picture in get_args(draw.Format) if picture == path.suffix[1:].lower())
    return draw.render_dot(draw.to_dot(plan, formatter), path, fmt)


def _netron(plan: Plan, path: Path) -> Path:
    from sdtrt.analysis.graph.netron import save_onnx

    path.parent.mkdir(parents=True, exist_ok=True)
    save_onnx(plan, path)
    return path


def _junit(analysis: Analysis, path: Path, severity: FailOn) -> Path:
    from sdtrt.analysis.comparison.junit import finding_cases, to_junit
    from sdtrt.analysis.findings import rules
    from sdtrt.system.files import write_text

    path.parent.mkdir(parents=True, exist_ok=True)
    cases = finding_cases(analysis.findings, [rule.name for rule in rules()], severity)
    write_text(path, to_junit("sdtrt analyze", cases))
    return path


def _gate(analysis: Analysis, fail_on: FailOn | None) -> None:
    from sdtrt.analysis.comparison.gate import at_least

    if fail_on and (found := at_least(analysis.findings, fail_on)):
        out.print(f"[red]{len(found)} findings are of severity {fail_on} or above[/]")
        raise typer.Exit(1)
