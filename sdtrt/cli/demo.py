"""`sdtrt demo`: build, generate and analyze on the embedded default, offline."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from sdtrt.cli import analyze
from sdtrt.cli.build import show_bundle
from sdtrt.cli.console import hush, out, progress
from sdtrt.cli.generate import show_times, timed_call

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
        from sdtrt import builder, demo
        from sdtrt.measure import measure_ceilings
        from sdtrt.pipelines.load import load

        hush()
        model = demo.copy(folder / "model")
        bundle = builder.build(model, folder / "bundle", backend=backend, profiles=[PROFILE], progress=report)
    show_bundle(bundle)
    started = time.perf_counter()
    pipe = load(bundle)
    loaded = time.perf_counter() - started
    best = bundle.manifest.shape_profiles[0].sizes("opt")
    call = {"prompt": [*demo.PROMPTS], "num_inference_steps": steps, "height": best["H"], "width": best["W"]}
    images, timing = timed_call(pipe, 0, call)
    timing.save(folder / "image.json")  # the bundle has its own, by its build
    for index, image in enumerate(images, start=1):
        image.save(folder / f"image-{index}.png")
    demo.grid(images, demo.PROMPTS).save(folder / "images.png")
    out.print(f"[bold]{folder / 'images.png'}[/]: {'; '.join(demo.PROMPTS)}", soft_wrap=True)
    show_times(timing, backend, loaded)
    with progress("ceilings") as report:
        report("measuring what the machine can do at best", 0.0)
        measure_ceilings().save(folder / "ceilings.json")
    analyze.write(bundle.path, folder / "report.html", folder / "ceilings.json", folder / "image.json")
