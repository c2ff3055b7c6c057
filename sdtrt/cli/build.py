"""`sdtrt build`: a checkpoint into a bundle of engines."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sdtrt.cli.console import hush, out, progress, size, table

if TYPE_CHECKING:
    from sdtrt.config import BuildConfig
    from sdtrt.forecast import Forecast
    from sdtrt.store import Bundle

# A finding may name a hundred modules: the manifest holds them all.
NOTE_CHARS = 200
EXAMPLES = (
    "Examples:\n\n"
    "[bold]sdtrt build stabilityai/stable-diffusion-xl-base-1.0 --out xl --config configs/sdxl_onnxruntime.yaml[/]\n\n"
    '[bold]sdtrt build ./my-model --out bundle --profile "B=1:1:4,H=256:512:768,W=256:512:768" --dry-run[/]'
)


def run(
    bundle: Annotated[Path, typer.Option("--out", "-o", help="Folder of the bundle.")],
    model: Annotated[
        str | None, typer.Argument(help="Hub id, diffusers folder, or .safetensors checkpoint; or named in --config.")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="YAML recipe; the options here win over it.")] = None,
    backend: Annotated[str | None, typer.Option(help="Engine backend; see `sdtrt doctor`.")] = None,
    precision: Annotated[str | None, typer.Option(help="fp32, fp16, fp8 or int8.")] = None,
    profile: Annotated[
        list[str] | None, typer.Option(help='Sizes, such as "B=1:1:4,H=256:512:768,W=512"; may be repeated.')
    ] = None,
    lora: Annotated[
        list[str] | None, typer.Option(help="LoRA to build in, as FILE or FILE:SCALE; may be repeated.")
    ] = None,
    controlnet: Annotated[
        list[str] | None, typer.Option(help="ControlNet to build in, hub id or folder; may be repeated.")
    ] = None,
    component: Annotated[list[str] | None, typer.Option(help="Build only this component; may be repeated.")] = None,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit on the hub.")] = None,
    variant: Annotated[str | None, typer.Option(help='Weight variant, such as "fp16".')] = None,
    force: Annotated[bool, typer.Option("--force", help="Build everything anew.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be built, and why; build nothing.")
    ] = False,
    print_trtexec: Annotated[
        bool, typer.Option("--print-trtexec", help="Print NVIDIA's commands for the same engines; build nothing.")
    ] = False,
) -> None:
    """Export, optimise, build and verify every component of a pipeline."""
    from sdtrt import config as configs

    recipe = configs.load(
        config,
        model=model,
        backend=backend,
        precision=precision,
        profiles=profile or None,
        components=component or None,
        lora=lora or None,
        controlnet=controlnet or None,
        revision=revision,
        variant=variant,
    )
    if print_trtexec:
        show_trtexec(recipe)
        return
    with progress("build") as report:
        report("looking at the model", 0.0)
        from sdtrt import builder
        from sdtrt.forecast import forecast

        hush()
        if not dry_run:
            made = builder.build(recipe.model, bundle, config=recipe, force=force, progress=report)
    if dry_run:
        show_forecast(forecast(recipe, bundle, force))
    else:
        show_bundle(made)


def show_trtexec(recipe: BuildConfig) -> None:
    """The commands of trtexec 10 and 11 for every component; neither TensorRT nor a GPU is needed for that."""
    from sdtrt import engines
    from sdtrt.engines import tensorrt
    from sdtrt.forecast import resolve

    out.print(
        "# run in the bundle's folder; options: {keep_onnx: true} keeps the graphs in it", style="dim", markup=False
    )
    given = recipe.options if recipe.backend == tensorrt.BACKEND.name else {}
    options = engines.Backend.check_options(tensorrt.BACKEND, given)
    _, _, specs, profiles = resolve(recipe)
    for name, spec in specs.items():
        if recipe.components is not None and name not in recipe.components:
            continue
        for major, release in ((10, "10.12 to 10.16"), (11, "11")):
            for command in tensorrt.trtexec(spec, profiles, options, recipe.profile_runs, major):
                out.print(f"# {name}, TensorRT {release}", style="dim", markup=False)
                out.print(command, markup=False, soft_wrap=True)


def show_forecast(plan: Forecast) -> None:
    """What would be done, component by component."""
    grid = table("component", "action", "weights", "why", numbers=("weights",))
    for step in plan.steps:
        grid.add_row(step.spec.name, step.action, size(step.weight_bytes), "\n".join(step.reasons))
    out.print(grid)
    out.print(f"profiles: {'; '.join(map(str, plan.profiles))}", soft_wrap=True)
    out.print(f"new on disk: about {size(plan.new_bytes)}; nothing was built")


def show_bundle(bundle: Bundle) -> None:
    """What was built, how large, how far from eager, how long it took."""
    grid = table("component", "weights", "nodes", "error against eager", "seconds", numbers=("weights", "seconds"))
    for name, c in bundle.manifest.components.items():
        nodes = f"{c.passes[0].nodes_before} -> {c.passes[-1].nodes_after}" if c.passes else "-"
        error = f"{max(c.parity.values()):.1e}" if c.parity else "-"
        grid.add_row(name, size(c.weight_bytes), nodes, error, f"{sum(c.seconds.values()):.1f}")
    out.print(grid)
    for name, c in bundle.manifest.components.items():
        for note in (*(n for p in c.passes if p.name == "fp32_islands" for n in p.notes), *c.notes):
            out.print(f"{name}: {note if len(note) < NOTE_CHARS else note[:NOTE_CHARS] + ' ...'}", markup=False)
    image = bundle.manifest.image
    if image:
        out.print(
            f"image against eager: PSNR {image['psnr_db']:.1f} dB, SSIM {image.get('ssim', math.nan):.3f}, "
            f"the worst of {image.get('images', 1):.0f} after {image['steps']:.0f} steps"
        )
    out.print(f"bundle: [bold]{bundle.path}[/]", soft_wrap=True)
