"""`sdtrt demo`: build, generate and analyze on the embedded default, offline."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from sdtrt.cli.commands import analyze
from sdtrt.cli.commands.build import show_bundle
from sdtrt.cli.commands.generate import show_times, timed_call
from sdtrt.cli.console import hush, out, progress

EXAMPLES = "Example: [bold]sdtrt demo[/], then open demo/report.html."
PROFILE = "B=1:1:8,H=64:128:192,W=64:128:192"


def run(
    folder: Annotated[
        Path, typer.Option("--out", "-o", help="Folder for the model, bundle, pictures and report.")
    ] = Path("demo"),
    backend: Annotated[str, typer.Option(help="Engine backend; see `sdtrt doctor`.")] = "onnxruntime",
    steps: Annotated[int, typer.Option(min=1, help="Denoising steps.")] = 20,
) -> None:
    """Build a tiny embedded model, make pictures with its engines, and write a report."""
    with progress("demo") as report:
        report("copying the model", 0.0)
        from sdtrt import tiny_model
        from sdtrt.bench.measure_peaks import measure_peaks
        from sdtrt.builder import build
        from sdtrt.pipelines.load import load

        hush()
        model = tiny_model.copy(folder / "model")
        bundle = build.build(model, folder / "bundle", backend=backend, profiles=[PROFILE], progress=report)
    show_bundle(bundle)
    started = time.perf_counter()
    pipe = load(bundle)
    loaded = time.perf_counter() - started
    best = bundle.manifest.shape_profiles[0].sizes("opt")
    call = {"prompt": [*tiny_model.PROMPTS], "num_inference_steps": steps, "height": best["H"], "width": best["W"]}
    images, timing = timed_call(pipe, 0, call)
    timing.save(folder / "image.json")  # the bundle has its own, by its build
    for index, image in enumerate(images, start=1):
        image.save(folder / f"image-{index}.png")
    tiny_model.grid(images, tiny_model.PROMPTS).save(folder / "images.png")
    out.print(f"[bold]{folder / 'images.png'}[/]: {'; '.join(tiny_model.PROMPTS)}", soft_wrap=True)
    show_times(timing, backend, loaded)
    with progress("peaks") as report:
        report("measuring what the machine can do at best", 0.0)
        measure_peaks().save(folder / "peaks.json")
    analyze.write(bundle.path, folder / "report.html", folder / "peaks.json", folder / "image.json")
