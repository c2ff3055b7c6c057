"""`sdtrt analyze`: reports, drawings and checks of engines. Needs no torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, get_args

import typer

from sdtrt.cli import options, plan_sources
from sdtrt.cli.console import ReportProgress, out, progress
from sdtrt.cli.tables import show_analysis
from sdtrt.errors import ConfigError

if TYPE_CHECKING:
    from sdtrt.analysis import Analysis
    from sdtrt.plan.layers import Plan

Color = Literal["type", "precision"]
FailOn = Literal["high", "medium", "low"]
REPORT_SUFFIXES = (".html", ".json", ".csv", ".md", ".xlsx")
DRAWING_SUFFIXES = (".svg", ".png", ".dot")
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
            metavar="SOURCE", help="Bundle, plan.json, or JSON files that trtexec exports; several share one report."
        ),
    ] = None,
    report: Annotated[
        Path | None, typer.Option("--out", "-o", help="Report, by default report.html; or .json, .csv, .md, .xlsx.")
    ] = None,
    json: Annotated[Path | None, typer.Option("--json", help="Write all data as JSON.")] = None,
    csv: Annotated[Path | None, typer.Option("--csv", help="Write the layer table as CSV.")] = None,
    md: Annotated[Path | None, typer.Option("--md", help="Write a short report as Markdown.")] = None,
    xlsx: Annotated[Path | None, typer.Option("--xlsx", help="Write all tables as an Excel workbook.")] = None,
    components: options.Components = None,
    onnx: options.OnnxFiles = None,
    shapes: options.InputShapes = None,
    profile: options.OptimizationProfile = 0,
    image: Annotated[Path | None, typer.Option("--run", help="Times of one image, by sdtrt generate --record.")] = None,
    peaks: Annotated[Path | None, typer.Option(help="Peak rates of the device, by sdtrt doctor --peaks.")] = None,
    graph: Annotated[Path | None, typer.Option(help="Draw the engine's layers: a .svg, .png or .dot file.")] = None,
    around: Annotated[str | None, typer.Option(help="With --graph: layers near this one (name or index).")] = None,
    query: Annotated[str | None, typer.Option(help="With --graph: layers that match this regular expression.")] = None,
    radius: Annotated[int | None, typer.Option(min=0, help="Distance from --around or --query, in edges.")] = None,
    depth: Annotated[int | None, typer.Option("--module-depth", min=1, help="With --graph: a box per module.")] = None,
    color: Annotated[Color, typer.Option(help="What the colors of --graph show.")] = "type",
    netron: Annotated[Path | None, typer.Option(help="Write the engine as an .onnx file to open in Netron.")] = None,
    fail_on: Annotated[FailOn | None, typer.Option(help="Exit with 1 for a finding of this severity or above.")] = None,
    junit: Annotated[Path | None, typer.Option(help="Write the findings as JUnit XML.")] = None,
    engine: Annotated[
        Path | None, typer.Option("--profile-engine", help="TensorRT engine file to time at --shapes and analyze.")
    ] = None,
    runs: Annotated[int, typer.Option(min=1, help="Timed runs of --profile-engine.")] = 20,
) -> None:
    """Explain engines: where the time goes, what limits each layer, what could be saved."""
    files = [(report.suffix.lower(), report)] if report else []
    files += [(s, p) for s, p in ((".json", json), (".csv", csv), (".md", md), (".xlsx", xlsx)) if p]
    _check_graph_options(graph, around, query, radius, depth)
    plan_sources.check_suffixes(files, REPORT_SUFFIXES)
    input_shapes, onnx_files = plan_sources.parse_shapes(shapes), plan_sources.parse_onnx(onnx)
    if not any((files, graph, netron, junit)):
        files = [(".html", Path("report.html"))]
    sources = _check_sources(sources, engine)
    with progress("analyze") as update:
        if engine:
            update(f"timing {engine.name}", 0.0)
            sources = [_profile(engine, input_shapes or {}, runs)]
            # The plan records the shapes that it was timed at: only a join with ONNX needs them again.
            input_shapes = input_shapes if onnx_files else None
        update("reading", 0.0)
        from sdtrt.analysis import load

        source = sources[0] if len(sources) == 1 else sources
        analysis = load(source, onnx=onnx_files, shapes=input_shapes, profile=profile, run=image, peaks=peaks)
        analysis = plan_sources.select_components(analysis, components or ())
        plan_sources.make_parent_folders((*(path for _, path in files), graph, netron, junit))
        _write(analysis, files, update)
        if graph:
            update("drawing", 0.6)
            plan = plan_sources.single_plan(analysis, "--graph")
            _draw(_select_layers(plan, around, query, radius, depth), graph, color)
        if netron:
            update("writing the graph for Netron", 0.8)
            from sdtrt.analysis.graph.netron import save_onnx

            save_onnx(plan_sources.single_plan(analysis, "--netron"), netron)
        if junit:
            _write_junit(analysis, junit, fail_on or "high")
        update("evaluating rules", 0.9)
        analysis.findings  # noqa: B018 (computed while the bar is shown)
    show_analysis(analysis)
    out.print()
    for path in (*(path for _, path in files), graph, netron, junit):
        if path:
            out.print(f"[bold]{path}[/]", soft_wrap=True)
    _fail_on_findings(analysis, fail_on)


def _check_graph_options(
    graph: Path | None, around: str | None, query: str | None, radius: int | None, depth: int | None
) -> None:
    selections = [option for option in (around, query, depth) if option is not None]
    if len(selections) > 1 or (selections and graph is None):
        raise ConfigError(
            "one of --around, --query and --module-depth, together with --graph, selects the layers to draw",
            slug="graph-options",
            received=f"{len(selections)} of them, {'with' if graph else 'without'} --graph",
        )
    if radius is not None and around is None and query is None:
        raise ConfigError(
            "--radius counts from --around or --query", slug="graph-options", received=f"--radius {radius}"
        )
    if graph and graph.suffix.lower() not in DRAWING_SUFFIXES:
        expected = " ".join(DRAWING_SUFFIXES)
        raise ConfigError("no such image format", slug="picture-kind", received=graph, expected=expected)


def _check_sources(sources: list[Path] | None, engine: Path | None) -> list[Path]:
    if bool(sources) == bool(engine):
        raise ConfigError(
            "either SOURCE or --profile-engine says what to analyze",
            slug="analyze-source",
            received="both" if sources else "neither",
            hint="sdtrt analyze bundle, or sdtrt analyze --profile-engine unet.plan --shapes sample=2x4x64x64",
        )
    return sources or []


def _profile(engine: Path, input_shapes: dict[str, tuple[int, ...]], runs: int) -> Path:
    """Time a TensorRT engine file, write trtexec's files and the layer plan next to it; returns the plan's path."""
    from sdtrt import engines
    from sdtrt.engines.backends.tensorrt.engine import BACKEND, profile_plan_file

    engines.require(BACKEND.name)
    path = engine.with_name(f"{engine.stem}.plan.json")
    profile_plan_file(engine, input_shapes, runs, engine.parent).save(path)
    return path


def _write(analysis: Analysis, files: Sequence[tuple[str, Path]], update: ReportProgress) -> None:
    from sdtrt import analysis as reports
    from sdtrt.system.files import write_text

    writers = {".html": reports.render, ".json": reports.to_json, ".csv": reports.to_csv, ".md": reports.to_markdown}
    for number, (suffix, path) in enumerate(files):
        update(f"writing {path.name}", 0.1 + 0.5 * number / len(files))
        if suffix == ".xlsx":
            reports.to_xlsx(analysis, path)
        else:
            write_text(path, writers[suffix](analysis))


def _select_layers(plan: Plan, around: str | None, query: str | None, radius: int | None, depth: int | None) -> Plan:
    from sdtrt.analysis.graph import draw

    limits = {} if radius is None else {"radius": radius}
    if around is not None:
        return draw.around(plan, int(around) if around.isdecimal() else around, **limits)
    if query is not None:
        return draw.subgraph(plan, query, **limits)
    return plan if depth is None else draw.by_module(plan, depth)


def _draw(plan: Plan, path: Path, color: Color) -> None:
    from sdtrt.analysis.graph import draw

    formatter = {"type": draw.layer_type_formatter, "precision": draw.precision_formatter}[color]
    fmt = next(name for name in get_args(draw.Format) if name == path.suffix[1:].lower())
    draw.render_dot(draw.to_dot(plan, formatter), path, fmt)


def _write_junit(analysis: Analysis, path: Path, severity: FailOn) -> None:
    from sdtrt.analysis.comparison.junit import finding_cases, to_junit
    from sdtrt.analysis.findings import rules
    from sdtrt.system.files import write_text

    cases = finding_cases(analysis.findings, [rule.name for rule in rules()], severity)
    write_text(path, to_junit("sdtrt analyze", cases))


def _fail_on_findings(analysis: Analysis, severity: FailOn | None) -> None:
    from sdtrt.analysis.comparison.gate import at_least

    if severity and (findings := at_least(analysis.findings, severity)):
        out.print(f"[red]{len(findings)} findings are of severity {severity} or above[/]")
        raise typer.Exit(1)
