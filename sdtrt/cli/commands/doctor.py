"""`sdtrt doctor`: what this machine has and which engines it can use."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from sdtrt import engines
from sdtrt.cli.console import hush, out, progress, size, table
from sdtrt.system import env, nvml

EXAMPLES = (
    "Examples:\n\n[bold]sdtrt doctor[/]\n\nFor a bug report: [bold]sdtrt doctor --json[/]\n\n"
    "For the roofline of a report: [bold]sdtrt doctor --peaks h200.json[/]\n\n"
    "[bold]sdtrt doctor --self-test --out self-test.json[/]"
)


def run(
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
    peaks: Annotated[
        Path | None, typer.Option(help="Measure peak rates of the device into this file, for sdtrt analyze --peaks.")
    ] = None,
    self_test: Annotated[
        bool, typer.Option("--self-test", help="Build and run a small model and check all that can be; minutes.")
    ] = False,
    report: Annotated[
        Path, typer.Option("--out", "-o", help="Where --self-test writes; a .md file comes beside it.")
    ] = Path("self-test.json"),
) -> None:
    """Show what this machine has, which engines it can use, and what mends those it cannot."""
    if peaks is not None:
        measure(peaks)
        return
    if self_test:
        check(report)
        return
    facts = env.describe()
    rows = [(n, engines.load(n).unavailable(), engines.load(n)) for n in engines.names()]
    import onnxruntime

    providers = list(onnxruntime.get_available_providers())
    if as_json:
        usable = {n: None if why is None else {"reason": why.reason, "fix": why.fix} for n, why, _ in rows}
        data = {**facts, "engines": usable, "onnxruntime_providers": providers}
        out.print_json(json.dumps(data))
        return
    machine = table("machine", "")
    for gpu in nvml.gpus():
        machine.add_row("GPU", f"{gpu.name}, {size(gpu.memory_bytes)}, SM {gpu.sm}, driver {gpu.driver}")
    if not nvml.gpus():
        machine.add_row("GPU", "none seen" if env.importable("pynvml") else "unknown: pip install nvidia-ml-py")
    machine.add_row("CPU", f"{facts['cpu']}, {facts['cores']} cores, {size(facts['memory_bytes'])}")
    machine.add_row("system", f"{facts['platform']}, Python {facts['python']}")
    for package in env.PACKAGES:
        machine.add_row(package, facts["packages"].get(package, "[dim]not installed[/]"))
    out.print(machine)
    found = table("engine", "usable", "version", "to mend")
    for name, why, backend in rows:
        if why is None:
            found.add_row(name, "[green]yes[/]", backend.version(), "")
        else:
            found.add_row(name, f"[red]no[/]: {why.reason}", "", why.fix)
    if "CUDAExecutionProvider" in providers:
        found.add_row("onnxruntime on CUDA", "[green]yes[/]", "", "")
    else:
        fix = "pip uninstall onnxruntime && pip install onnxruntime-gpu" if nvml.gpus() else "needs an NVIDIA GPU"
        found.add_row("onnxruntime on CUDA", "[red]no[/]: this build has no CUDA provider", "", fix)
    out.print(found)


def measure(path: Path) -> None:
    """Write the device's peaks and show them."""
    with progress("doctor") as report:
        report("measuring what the device can do at best", 0.0)
        from sdtrt.bench.measure_peaks import measure_peaks

        found = measure_peaks()
    path.parent.mkdir(parents=True, exist_ok=True)
    found.save(path)
    grid = table("peak", found.device, numbers=(found.device,))
    for dtype, rate in found.matrix_tflops.items():
        grid.add_row(f"{dtype} products", f"{rate:.3g} TFLOP/s")
    grid.add_row("memory", f"{found.gb_per_s:.3g} GB/s")
    out.print(grid)
    out.print(f"[bold]{path}[/]", soft_wrap=True)


def check(report: Path) -> None:
    """Run the self-test, show its checks, and exit with 1 when one failed."""
    with progress("self-test") as say:
        say("loading", 0.0)
        from sdtrt import selftest

        hush()
        result = selftest.run(report, say)
    grid = table("backend", "check", "result", "seconds", "", numbers=("seconds",))
    colors = {"passed": "green", "failed": "red", "skipped": "dim"}
    for c in (c for c in result.checks if c.backend not in result.missing):
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
