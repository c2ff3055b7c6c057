"""`sdtrt build`: a checkpoint into a bundle of engines."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sdtrt.cli.console import Countdown, duration, hush, out, progress, size, table
from sdtrt.cli.memory_tables import show_expected, show_found
from sdtrt.errors import ConfigError

if TYPE_CHECKING:
    from sdtrt.builder.build_plan import BuildPlan
    from sdtrt.bundle.bundle import Bundle
    from sdtrt.bundle.manifest import Quantization
    from sdtrt.config import BuildConfig

# A finding may name a hundred modules: the manifest holds them all.
NOTE_CHARS = 200
_WORST = 3
EXAMPLES = (
    "Examples:\n\n"
    "[bold]sdtrt build stabilityai/stable-diffusion-xl-base-1.0 --out xl --config sdxl_onnxruntime[/]\n\n"
    '[bold]sdtrt build ./my-model --out bundle --profile "B=1:1:4,H=256:512:768,W=256:512:768" --dry-run[/]\n\n'
    '[bold]sdtrt build bundle --add-profile "B=1,H=768,W=1024"[/]'
)


def run(
    context: typer.Context,
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="MODEL",
            help="Hub id, diffusers folder, or .safetensors checkpoint; or named in --config; or a bundle to add to.",
        ),
    ] = None,
    bundle: Annotated[Path | None, typer.Option("--out", "-o", help="Folder of the bundle.")] = None,
    add_profile: Annotated[
        list[str] | None,
        typer.Option(help="Add these sizes to the bundle, by its own recipe, and keep the rest; may be repeated."),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(help="YAML recipe, or the name of a shipped one (sdxl_inductor_fp8); options win over it."),
    ] = None,
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
    """Export, optimize, build and verify every component of a pipeline."""
    from sdtrt import config as configs

    if add_profile:
        add_sizes(model, bundle, add_profile, _given(context), force=force, dry_run=dry_run)
        return

    if model is None and config is None:
        raise ConfigError(
            "the model is missing",
            slug="config-missing-key",
            expected="MODEL, or --config FILE that names one",
            hint="sdtrt build --help has examples",
        )
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
    if bundle is None:
        raise typer.BadParameter("say where the bundle goes", param_hint="--out")
    with progress("build") as report:
        report("looking at the model", 0.0)
        from sdtrt.builder import build
        from sdtrt.builder.build_plan import forecast

        hush()
        plan = forecast(recipe, bundle, force)
    show_forecast(plan)
    show_expected(plan, bundle)
    if dry_run:
        out.print("nothing was built")
        return
    with progress("build", Countdown(plan.expected_s)) as report:
        made = build.run(plan, bundle, report)
    show_bundle(made)


def _given(context: typer.Context) -> set[str]:
    """Options that were typed, as they are typed."""
    flags = {p.name: max(p.opts, key=len) for p in context.command.params if p.name}
    typed = (n for n in flags if (where := context.get_parameter_source(n)) and where.name == "COMMANDLINE")
    return {flags[n] for n in typed}


def add_sizes(
    model: str | None, bundle: Path | None, profiles: list[str], given: set[str], *, force: bool, dry_run: bool
) -> None:
    """Add profiles to a bundle, which is MODEL or --out; with both, MODEL is where its checkpoint lies now."""
    from sdtrt.bundle.manifest import MANIFEST

    if other := given - {"model", "--out", "--add-profile", "--force", "--dry-run"}:
        raise ConfigError(
            "a bundle is extended by its own recipe",
            slug="add-profile-options",
            received=", ".join(sorted(other)),
            expected="--add-profile with --dry-run or --force alone",
            hint="to build by another recipe, leave --add-profile out",
        )
    if bundle is None and model is None:
        raise typer.BadParameter("name the bundle", param_hint="--add-profile")
    if bundle is None or (model is not None and (Path(model) / MANIFEST).is_file()):
        model, bundle = None, check_same(Path(model or ""), bundle)
    with progress("add sizes") as report:
        report("looking at the bundle", 0.0)
        from sdtrt.builder import add_profiles

        hush()
        plan = add_profiles.plan(bundle, profiles, model, force)
        if not dry_run:
            made = add_profiles.run(plan, bundle, report)
    if dry_run:
        show_forecast(plan)
        out.print("nothing was built")
        return
    show_bundle(made)
    for step in plan.steps:
        if step.action == "reuse":
            out.print(f"{step.spec.name} was kept: {step.reasons[0]}", markup=False, soft_wrap=True)


def check_same(bundle: Path, target: Path | None) -> Path:
    """The one bundle that is meant; ConfigError when two are named."""
    if target is not None and target.resolve() != bundle.resolve():
        raise ConfigError(
            "sizes are added to a bundle in its place",
            slug="add-profile-out",
            received=f"{bundle} and --out {target}",
            expected="one bundle",
            hint="copy the folder first to keep the bundle as it is",
        )
    return bundle


def show_trtexec(recipe: BuildConfig) -> None:
    """The commands of trtexec 10 and 11 for every component; neither TensorRT nor a GPU is needed for that."""
    from sdtrt import engines
    from sdtrt.builder.build_plan import resolve
    from sdtrt.engines.backends.tensorrt import engine

    out.print(
        "# run in the bundle's folder; options: {keep_onnx: true} keeps the graphs in it", style="dim", markup=False
    )
    given = recipe.options if recipe.backend == engine.BACKEND.name else {}
    options = engines.Backend.check_options(engine.BACKEND, given)
    _, _, specs, profiles = resolve(recipe)
    for name, spec in specs.items():
        if recipe.components is not None and name not in recipe.components:
            continue
        for major, release in ((10, "10.12 to 10.16"), (11, "11")):
            for command in engine.trtexec(spec, profiles, options, recipe.profile_runs, major):
                out.print(f"# {name}, TensorRT {release}", style="dim", markup=False)
                out.print(command, markup=False, soft_wrap=True)


def show_forecast(plan: BuildPlan) -> None:
    """What would be done, component by component."""
    grid = table("component", "action", "weights", "time", "why", numbers=("weights", "time"))
    for step in plan.steps:
        time = duration(step.expected_s) if step.action == "build" else "-"
        grid.add_row(step.spec.name, step.action, size(step.weight_bytes), time, "\n".join(step.reasons))
    out.print(grid)
    out.print(f"profiles: {'; '.join(map(str, plan.profiles))}", soft_wrap=True)
    out.print(f"new on disk: about {size(plan.new_bytes)}; time, from earlier builds here: {duration(plan.expected_s)}")


def show_bundle(bundle: Bundle) -> None:
    """What was built, how large, how far from eager, how long it took."""
    grid = table("component", "weights", "nodes", "error against eager", "seconds", numbers=("weights", "seconds"))
    for name, c in bundle.manifest.components.items():
        nodes = f"{c.passes[0].nodes_before} -> {c.passes[-1].nodes_after}" if c.passes else "-"
        error = f"{max(c.parity.values()):.1e}" if c.parity else "-"
        grid.add_row(name, size(c.weight_bytes), nodes, error, f"{sum(c.seconds.values()):.1f}")
    out.print(grid)
    for name, c in bundle.manifest.components.items():
        for note in (*(n for p in c.passes if p.name == "widen_fp32" for n in p.notes), *c.notes):
            out.print(f"{name}: {note if len(note) < NOTE_CHARS else note[:NOTE_CHARS] + ' ...'}", markup=False)
        if c.quantization is not None:
            out.print(f"{name}: {rounded(c.quantization)}", markup=False, soft_wrap=True)
    out.print(f"sizes: {'; '.join(bundle.manifest.profiles)}", soft_wrap=True)
    show_found(bundle.manifest)
    image = bundle.manifest.image
    if image:
        out.print(
            f"image against eager: PSNR {image['psnr_db']:.1f} dB, SSIM {image.get('ssim', math.nan):.3f}, "
            f"the worst of {image.get('images', 1):.0f} after {image['steps']:.0f} steps"
        )
    out.print(f"bundle: [bold]{bundle.path}[/]", soft_wrap=True)


def rounded(found: Quantization) -> str:
    """Which layers are rounded, and where it was measured, what that costs and which are kept for it."""
    layers = f"{len(found.layers)} layers in {found.scheme}"
    if not found.errors:
        return layers
    error = math.hypot(*(found.errors[name] for name in found.layers))
    text = f"{layers}, which put the output off by {error:.2g}; {len(found.kept)} more stay fp16"
    worst = ", ".join(f"{name} ({found.errors[name]:.2g})" for name in found.kept[:_WORST])
    return f"{text}, the worst {worst}" if worst else text
