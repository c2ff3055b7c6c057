"""`sdtrt bench`: how fast a bundle serves, against eager diffusers."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer
from rich.markup import escape

from sdtrt.cli.console import hush, out, progress, size, table
from sdtrt.errors import ConfigError

if TYPE_CHECKING:
    from sdtrt.bench import Bench, Case

T = TypeVar("T")
EXAMPLES = "Example: [bold]sdtrt bench bundle --batch 1,4 --runs 15 --min-ratio 1.2[/]; exit code 1 when it is not met."


def run(
    bundle: Annotated[Path, typer.Argument(help="Folder of the bundle.")],
    sizes: Annotated[str, typer.Option(help="Pixels, such as 512x512,768x512; by default the best size.")] = "",
    batch: Annotated[str, typer.Option(help="Images per call, such as 1,4.")] = "1",
    steps: Annotated[int, typer.Option(min=1, help="Denoising steps.")] = 20,
    runs: Annotated[int, typer.Option(min=1, help="Rounds that are timed, after one that is not.")] = 10,
    concurrency: Annotated[int, typer.Option(min=1, help="Threads that call the pipeline at once.")] = 1,
    guidance: Annotated[float | None, typer.Option(help="Guidance scale; by default the pipeline's.")] = None,
    starts: Annotated[int, typer.Option(min=0, help="Fresh processes, for cold start and memory; 0 for none.")] = 1,
    eager: Annotated[bool, typer.Option("--eager/--no-eager", help="Measure eager diffusers too, in turns.")] = True,
    model: Annotated[str | None, typer.Option(help="Where the checkpoint lies now, if not where it was.")] = None,
    max_p90: Annotated[float | None, typer.Option(help="Fail when 90 % of the calls take longer, in seconds.")] = None,
    min_ratio: Annotated[float | None, typer.Option(help="Fail when it is not this many times as fast.")] = None,
    record: Annotated[Path, typer.Option("--out", "-o", help="JSON file to write.")] = Path("bench.json"),
    baseline: Annotated[Path | None, typer.Option(help="An earlier JSON file, to show what changed.")] = None,
) -> None:
    """Measure cold start, latency, throughput and memory, and where the time of an image goes."""
    if min_ratio is not None and not eager:
        raise ConfigError("--min-ratio needs eager diffusers", slug="bench-ratio", hint="leave out --no-eager")
    wanted = (
        _each(sizes, "sizes", "such as 512x512,768x512", _size),
        _each(batch, "batch", "such as 1,4", int),
    )
    with progress("bench") as report:
        report("loading", 0.0)
        from sdtrt.bench import Bench
        from sdtrt.bench import bench as measure

        hush()
        before = Bench.load(baseline) if baseline else None
        found = measure(
            bundle,
            sizes=wanted[0],
            batches=wanted[1],
            steps=steps,
            runs=runs,
            callers=concurrency,
            guidance_scale=guidance,
            eager=eager,
            model=model,
            starts=starts,
            progress=report,
        )
    found.save(record)
    show(found, before)
    out.print(f"[bold]{escape(str(record))}[/]", soft_wrap=True)
    _check(found, max_p90, min_ratio)


def show(found: Bench, before: Bench | None = None) -> None:
    """Tables: the cases, where an image's time goes, and what a fresh process needs."""
    packages = found.machine["packages"]
    versions = ", ".join(f"{name} {packages[name]}" for name in ("torch", "diffusers") if name in packages)
    out.print(f"{found.device}, {found.machine['cores']} cores, {found.backend} {found.backend_version}, {versions}")
    threads = f"{found.torch_threads} thread{'s' * (found.torch_threads != 1)} of torch"
    eager = f"; eager in {found.eager_dtype}, {threads}" if found.eager_dtype else ""
    out.print(f"{found.family}, {found.precision}, {found.steps} steps, {found.runs} rounds{eager}\n", highlight=False)
    _cases(found, {case.name: case for case in before.cases} if before else None)
    out.print()
    _stages(found)
    if found.starts:
        out.print()
        _starts(found)
    for reason in found.clocks.get("Throttle Reasons", ()):
        out.print(f"[yellow]note[/] the GPU was held back meanwhile: {reason}")
    if found.load_average and found.load_average > 2 * found.machine["cores"]:
        out.print(f"[yellow]note[/] the machine had other work: load average {found.load_average:.1f}")


def _cases(found: Bench, before: dict[str, Case] | None) -> None:
    numbers = ("p50", "p90", "p99", "images/s", "eager p50", "ratio", *["before"][: before is not None])
    grid = table("case", *numbers, numbers=numbers)
    for case in found.cases:
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


def _stages(found: Bench) -> None:
    """Columns are cases: the share of each engine, and what is left for diffusers."""
    names = list(dict.fromkeys(name for case in found.cases for name in case.image.engines))
    columns = [case.name.replace(", batch ", " x") for case in found.cases]
    grid = table("one call, ms", *columns, numbers=tuple(columns))
    rest = [case.image.wall_ms for case in found.cases]
    for name in names:
        spent = [case.image.engines.get(name) for case in found.cases]
        grid.add_row(name, *(f"{calls.total_ms:.1f}" if calls else "" for calls in spent))
        rest = [ms - (calls.total_ms if calls else 0.0) for ms, calls in zip(rest, spent, strict=True)]
    grid.add_row("scheduler, rest", *(f"{ms:.1f}" for ms in rest))
    grid.add_row("total", *(f"{case.image.wall_ms:.1f}" for case in found.cases))
    out.print(grid)


def _starts(found: Bench) -> None:
    numbers = ("loaded", "first image", "second call", "peak memory", *["on the GPU"][: len(found.machine["gpus"])])
    grid = table("fresh process", *numbers, numbers=numbers)
    for kind, starts in found.starts.items():
        for start in starts:
            row = [_s(start.loaded_s), _s(start.first_image_s), _s(start.second_call_s), size(start.resident_bytes)]
            grid.add_row(kind, *row, *[size(start.gpu_bytes)][: len(found.machine["gpus"])])
    out.print(grid)


def _check(found: Bench, max_p90: float | None, min_ratio: float | None) -> None:
    from sdtrt.bench import BenchError

    slow = [c for c in found.cases if max_p90 is not None and c.engines.latency.p90_s > max_p90]
    if slow:
        received = "; ".join(f"{c.name}: {_s(c.engines.latency.p90_s)}" for c in slow)
        raise BenchError("calls take too long", slug="bench-p90", received=received, expected=f"p90 up to {max_p90} s")
    low = [c for c in found.cases if min_ratio is not None and c.ratio is not None and c.ratio.median < min_ratio]
    if low:
        received = "; ".join(f"{c.name}: {c.ratio.median:.2f} times" for c in low if c.ratio)
        raise BenchError(
            "not fast enough against eager diffusers",
            slug="bench-ratio",
            received=received,
            expected=f"{min_ratio} times as fast, or more",
        )


def _each(text: str, what: str, example: str, parse: Callable[[str], T]) -> list[T]:
    try:
        return [parse(part.strip()) for part in text.split(",") if part.strip()]
    except ValueError as exc:
        raise ConfigError(f"--{what} cannot be read", slug=f"bench-{what}", received=text, expected=example) from exc


def _size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)x(\d+)", text)
    if match is None:
        raise ValueError(text)
    return int(match[1]), int(match[2])


def _s(seconds: float) -> str:
    return f"{seconds:.3f} s" if seconds < 10 else f"{seconds:.1f} s"
