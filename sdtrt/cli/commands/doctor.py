"""`sdtrt doctor`: hardware, package versions and usable backends of this machine; its peak rates; the self-test."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from sdtrt import engines
from sdtrt.cli.console import disable_library_progress, format_bytes, out, progress, table
from sdtrt.system import env, nvml

EXAMPLES = (
    "Examples:\n\n[bold]sdtrt doctor[/]\n\nFor a bug report: [bold]sdtrt doctor --json[/]\n\n"
    "For the roofline of a report: [bold]sdtrt doctor --peaks h200.json[/]\n\n"
    "[bold]sdtrt doctor --self-test --out self-test.json[/]"
)


def run(
    as_json: Annotated[bool, typer.Option("--json", help="Print all data as JSON.")] = False,
    peaks: Annotated[Path | None, typer.Option(help="Measure and write peak rates, for analyze --peaks.")] = None,
    self_test: Annotated[bool, typer.Option("--self-test", help="Check a small model on every backend.")] = False,
    report: Annotated[Path, typer.Option("--out", "-o", help="Report of --self-test.")] = Path("self-test.json"),
) -> None:
    """Show this machine's hardware and packages, the backends it can use, and how to fix the others."""
    if peaks is not None:
        write_peaks(peaks)
        return
    if self_test:
        run_self_test(report)
        return
    facts = env.describe()
    backends = [engines.load(name) for name in engines.names()]
    problems = {backend.name: backend.unavailable() for backend in backends}
    import onnxruntime

    providers = list(onnxruntime.get_available_providers())
    if as_json:
        unusable = {n: p and {"reason": p.reason, "fix": p.fix} for n, p in problems.items()}
        out.print_json(json.dumps({**facts, "engines": unusable, "onnxruntime_providers": providers}))
        return
    machine = table("machine", "")
    for gpu in nvml.gpus():
        machine.add_row("GPU", f"{gpu.name}, {format_bytes(gpu.memory_bytes)}, SM {gpu.sm}, driver {gpu.driver}")
    if not nvml.gpus():
        machine.add_row("GPU", "none seen" if env.importable("pynvml") else "unknown: pip install nvidia-ml-py")
    machine.add_row("CPU", f"{facts['cpu']}, {facts['cores']} cores, {format_bytes(facts['memory_bytes'])}")
    machine.add_row("system", f"{facts['platform']}, Python {facts['python']}")
    for package in env.PACKAGES:
        machine.add_row(package, facts["packages"].get(package, "[dim]not installed[/]"))
    out.print(machine)
    grid = table("backend", "usable", "version", "fix")
    for backend in backends:
        if (problem := problems[backend.name]) is None:
            grid.add_row(backend.name, "[green]yes[/]", backend.version(), "")
        else:
            grid.add_row(backend.name, f"[red]no[/]: {problem.reason}", "", problem.fix)
    if "CUDAExecutionProvider" in providers:
        grid.add_row("onnxruntime on CUDA", "[green]yes[/]", "", "")
    else:
        fix = "pip uninstall onnxruntime && pip install onnxruntime-gpu" if nvml.gpus() else "needs an NVIDIA GPU"
        grid.add_row("onnxruntime on CUDA", "[red]no[/]: this build has no CUDA provider", "", fix)
    out.print(grid)


def write_peaks(path: Path) -> None:
    """Measure the device's peak rates, write and print them."""
    with progress("doctor") as report:
        report("measuring peak rates of the device", 0.0)
        from sdtrt.bench.measure_peaks import measure_peaks

        peaks = measure_peaks()
    path.parent.mkdir(parents=True, exist_ok=True)
    peaks.save(path)
    grid = table("peak", peaks.device, numbers=(peaks.device,))
    for dtype, rate in peaks.matrix_tflops.items():
        grid.add_row(f"{dtype} matmul", f"{rate:.3g} TFLOP/s")
    grid.add_row("memory", f"{peaks.gb_per_s:.3g} GB/s")
    out.print(grid)
    out.print(f"[bold]{path}[/]", soft_wrap=True)


def run_self_test(report: Path) -> None:
    """Run the self-test, print its checks, and exit with 1 when one failed."""
    with progress("self-test") as update:
        update("loading", 0.0)
        from sdtrt import selftest

        disable_library_progress()
        result = selftest.run(report, update)
    grid = table("backend", "check", "result", "seconds", "", numbers=("seconds",))
    colors = {"passed": "green", "failed": "red", "skipped": "dim"}
    for c in result.checks:
        if c.backend in result.missing:
            continue
        color = colors[c.status]
        reason = escape(c.reason.partition("\n")[0])
        grid.add_row(c.backend, c.title, f"[{color}]{c.status}[/]", f"{c.seconds:.1f}", reason)
    out.print(grid)
    for name, why in result.missing.items():
        out.print(f"{name} cannot run here: {why}", markup=False, soft_wrap=True)
    files = f"{report} and {report.with_suffix('.md')}"
    out.print(f"attach to an issue: {files}", markup=False, soft_wrap=True)
    if result.failed:
        raise typer.Exit(1)
