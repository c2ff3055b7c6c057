"""`sdtrt demo`: build, run and analyze the tiny model that sdtrt includes; needs no network."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from sdtrt.cli import options
from sdtrt.cli.commands.build import show_bundle
from sdtrt.cli.commands.generate import show_times, timed_call
from sdtrt.cli.console import disable_library_progress, out, progress
from sdtrt.cli.tables import show_analysis

EXAMPLES = "Example: [bold]sdtrt demo[/], then open demo/report.html."
PROFILE = "B=1:1:8,H=64:128:192,W=64:128:192"


def run(
    folder: Annotated[Path, typer.Option("--out", "-o", help="Folder for all files.")] = Path("demo"),
    backend: Annotated[str, typer.Option(help="Backend of the engines; sdtrt doctor lists them.")] = "onnxruntime",
    steps: options.Steps = 20,
) -> None:
    """Build engines of an included tiny model, generate images with them, and write a report."""
    with progress("demo") as report:
        report("copying the model", 0.0)
        from sdtrt import analysis, tiny_model
        from sdtrt.bench.measure_peaks import measure_peaks
        from sdtrt.builder import build
        from sdtrt.pipelines.load import load
        from sdtrt.system.files import write_text

        disable_library_progress()
        model = tiny_model.copy(folder / "model")
        bundle = build.build(model, folder / "bundle", backend=backend, profiles=[PROFILE], progress=report)
    show_bundle(bundle)
    started = time.perf_counter()
    pipe = load(bundle)
    load_s = time.perf_counter() - started
    best = bundle.manifest.shape_profiles[0].sizes("opt")
    call = {"prompt": [*tiny_model.PROMPTS], "num_inference_steps": steps, "height": best["H"], "width": best["W"]}
    images, timing = timed_call(pipe, 0, call)
    timing.save(folder / "image.json")  # next to the bundle, which has the times of its build's image
    for index, image in enumerate(images, start=1):
        image.save(folder / f"image-{index}.png")
    tiny_model.grid(images, tiny_model.PROMPTS).save(folder / "images.png")
    out.print(f"[bold]{folder / 'images.png'}[/]: {'; '.join(tiny_model.PROMPTS)}", soft_wrap=True)
    show_times(timing, backend, load_s)
    with progress("peaks") as report:
        report("measuring peak rates of the device", 0.0)
        measure_peaks().save(folder / "peaks.json")
    with progress("analyze") as report:
        report("writing report.html", 0.0)
        analyzed = analysis.load(bundle.path, peaks=folder / "peaks.json", run=folder / "image.json")
        write_text(folder / "report.html", analysis.render(analyzed))
    show_analysis(analyzed)
    out.print(f"[bold]{folder / 'report.html'}[/]", soft_wrap=True)
