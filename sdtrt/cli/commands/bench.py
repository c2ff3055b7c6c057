"""`sdtrt bench`: speed and memory of a bundle next to eager diffusers."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer
from rich.markup import escape

from sdtrt.cli import options
from sdtrt.cli.console import disable_library_progress, format_bytes, out, progress, table
from sdtrt.errors import ConfigError

if TYPE_CHECKING:
    from sdtrt.bench import Bench, Case

T = TypeVar("T")
EXAMPLES = "Example: [bold]sdtrt bench bundle --batch 1,4 --runs 15 --min-ratio 1.2[/]; exit code 1 below that ratio."


def run(
    bundle: options.Bundle,
    sizes: Annotated[str, typer.Option(help="Pixels, such as 512x512,768x512; by default the bundle's optimum.")] = "",
    batch: Annotated[str, typer.Option(help="Images per call, such as 1,4.")] = "1",
    steps: options.Steps = 20,
    runs: Annotated[int, typer.Option(min=1, help="Timed rounds; one more before them is a warm-up.")] = 10,
    concurrency: Annotated[int, typer.Option(min=1, help="Threads that call the pipeline at the same time.")] = 1,
    guidance: Annotated[float | None, typer.Option(help="Guidance scale; by default the pipeline's.")] = None,
    starts: Annotated[int, typer.Option(min=0, help="Fresh processes, to measure cold start and peak memory.")] = 1,
    eager: Annotated[bool, typer.Option("--eager/--no-eager", help="Measure eager diffusers too, in turns.")] = True,
    model: options.Checkpoint = None,
    max_p90: Annotated[float | None, typer.Option(help="Exit with 1 for a p90 latency above this, in seconds.")] = None,
    min_ratio: Annotated[float | None, typer.Option(help="Exit with 1 for a speedup over eager below this.")] = None,
    record: Annotated[Path, typer.Option("--out", "-o", help="JSON file to write.")] = Path("bench.json"),
    baseline: Annotated[Path | None, typer.Option(help="JSON file of an earlier run to compare with.")] = None,
) -> None:
    """Measure cold start, latency, throughput and memory, and where the time of an image goes."""
    if min_ratio is not None and not eager:
        raise ConfigError("--min-ratio needs eager diffusers", slug="bench-ratio", hint="leave out --no-eager")
    shapes = _parse_list(sizes, "sizes", "such as 512x512,768x512", _parse_size)
    batches = _parse_list(batch, "batch", "such as 1,4", int)
    with progress("bench") as report:
        report("loading", 0.0)
        from sdtrt.bench import Bench
        from sdtrt.bench import bench as measure

        disable_library_progress()
        before = Bench.load(baseline) if baseline else None
        result = measure(
            bundle,
            sizes=shapes,
            batches=batches,
            steps=steps,
            runs=runs,
            callers=concurrency,
            guidance_scale=guidance,
            eager=eager,
            model=model,
            starts=starts,
            progress=report,
        )
    result.save(record)
    show_bench(result, before)
    out.print(f"[bold]{escape(str(record))}[/]", soft_wrap=True)
    _check_limits(result, max_p90, min_ratio)


def show_bench(result: Bench, before: Bench | None = None) -> None:
    """Print tables of the cases, of the time per engine, and of cold starts."""
    packages = result.machine["packages"]
    versions = ", ".join(f"{name} {packages[name]}" for name in ("torch", "diffusers") if name in packages)
    backend = f"{result.backend} {result.backend_version}"
    out.print(f"{result.device}, {result.machine['cores']} cores, {backend}, {versions}")
    threads = f"{result.torch_threads} thread{'s' * (result.torch_threads != 1)} of torch"
    eager = f"; eager in {result.eager_dtype}, {threads}" if result.eager_dtype else ""
    out.print(f"{result.family}, {result.precision}, {result.steps} steps, {result.runs} rounds{eager}\n")
    _cases(result, {case.name: case for case in before.cases} if before else None)
    out.print()
    _engine_times(result)
    if result.starts:
        out.print()
        _starts(result)
    for reason in result.clocks.get("Throttle Reasons", ()):
        out.print(f"[yellow]note[/] the GPU was throttled during the measurement: {reason}")
    if result.load_average and result.load_average > 2 * result.machine["cores"]:
        out.print(f"[yellow]note[/] the machine was busy with other work: load average {result.load_average:.1f}")


def _cases(result: Bench, before: dict[str, Case] | None) -> None:
    numbers = ("p50", "p90", "p99", "images/s", "eager p50", "ratio", *["before"][: before is not None])
    grid = table("case", *numbers, numbers=numbers)
    for case in result.cases:
        times = case.engines.latency
        row = [_s(times.p50_s), _s(times.p90_s), _s(times.p99_s), f"{case.engines.images_per_s:.2f}"]
        row.append(_s(case.eager.latency.p50_s) if case.eager else "")
        row.append(f"[bold]{case.ratio.median:.2f}[/] ± {case.ratio.mad:.2f}" if case.ratio else "")
        if before is not None:
            old = before.get(case.name)
            change = (times.p50_s / old.engines.latency.p50_s - 1) if old else None
            row.append("" if old is None else f"{_s(old.engines.latency.p50_s)} ({change:+.0%})")
        grid.add_row(case.name, *row)
    out.print(grid)


def _engine_times(result: Bench) -> None:
    """A column per case: the time of each engine, and the rest of the pipeline."""
    names = list(dict.fromkeys(name for case in result.cases for name in case.image.engines))
    columns = [case.name.replace(", batch ", " x") for case in result.cases]
    grid = table("one call, ms", *columns, numbers=tuple(columns))
    for name in names:
        calls_by_case = (case.image.engines.get(name) for case in result.cases)
        grid.add_row(name, *(f"{calls.total_ms:.1f}" if calls else "" for calls in calls_by_case))
    rest_ms = [c.image.wall_ms - sum(calls.total_ms for calls in c.image.engines.values()) for c in result.cases]
    grid.add_row("scheduler, rest", *(f"{ms:.1f}" for ms in rest_ms))
    grid.add_row("total", *(f"{case.image.wall_ms:.1f}" for case in result.cases))
    out.print(grid)


def _starts(result: Bench) -> None:
    numbers = ("loaded", "first image", "second call", "peak memory", *["on the GPU"][: len(result.machine["gpus"])])
    grid = table("fresh process", *numbers, numbers=numbers)
    for kind, starts in result.starts.items():
        for start in starts:
            times = map(_s, (start.loaded_s, start.first_image_s, start.second_call_s))
            memory = (format_bytes(start.resident_bytes), format_bytes(start.gpu_bytes))[: len(numbers) - 3]
            grid.add_row(kind, *times, *memory)
    out.print(grid)


def _check_limits(result: Bench, max_p90: float | None, min_ratio: float | None) -> None:
    from sdtrt.bench import BenchError

    slow = [c for c in result.cases if max_p90 is not None and c.engines.latency.p90_s > max_p90]
    if slow:
        received = "; ".join(f"{c.name}: {_s(c.engines.latency.p90_s)}" for c in slow)
        expected = f"p90 up to {max_p90} s"
        raise BenchError("the latency is above its limit", slug="bench-p90", received=received, expected=expected)
    low = [c for c in result.cases if min_ratio is not None and c.ratio is not None and c.ratio.median < min_ratio]
    if low:
        received = "; ".join(f"{c.name}: {c.ratio.median:.2f} times" for c in low if c.ratio)
        raise BenchError(
            "the speedup over eager diffusers is below its limit",
            slug="bench-ratio",
            received=received,
            expected=f"{min_ratio} times as fast, or more",
        )


def _parse_list(text: str, name: str, example: str, parse: Callable[[str], T]) -> list[T]:
    try:
        return [parse(part.strip()) for part in text.split(",") if part.strip()]
    except ValueError as exc:
        raise ConfigError(f"--{name} cannot be read", slug=f"bench-{name}", received=text, expected=example) from exc


def _parse_size(text: str) -> tuple[int, int]:
    if re.fullmatch(r"\d+x\d+", text) is None:
        raise ValueError(text)
    width, height = map(int, text.split("x"))
    return width, height


def _s(seconds: float) -> str:
    return f"{seconds:.3f} s" if seconds < 10 else f"{seconds:.1f} s"
