"""`sdtrt build`: build the engines of a checkpoint into a bundle, or add shape profiles to a bundle."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sdtrt.cli import options
from sdtrt.cli.console import Countdown, disable_library_progress, format_bytes, format_duration, out, progress, table
from sdtrt.cli.memory_tables import show_estimated_memory, show_recorded_memory
from sdtrt.errors import ConfigError

if TYPE_CHECKING:
    from sdtrt.builder.build_plan import BuildPlan
    from sdtrt.bundle.bundle import Bundle
    from sdtrt.bundle.manifest import Quantization
    from sdtrt.config import BuildConfig

# A note may name a hundred modules; the manifest has the whole text.
MAX_NOTE_CHARS = 200
MAX_SENSITIVE_LAYERS = 3
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
            help="Hub id, diffusers folder or .safetensors file, if not in --config; a bundle with --add-profile.",
        ),
    ] = None,
    bundle: Annotated[Path | None, typer.Option("--out", "-o", help="Bundle folder to write.")] = None,
    add_profile: Annotated[
        list[str] | None, typer.Option(help="Add this shape profile to a bundle, by its recipe; may be repeated.")
    ] = None,
    config: options.Recipe = None,
    backend: options.Backend = None,
    precision: options.Precision = None,
    profiles: options.Profiles = None,
    lora: options.Loras = None,
    controlnet: options.ControlNets = None,
    components: options.Components = None,
    revision: options.Revision = None,
    variant: options.Variant = None,
    force: Annotated[bool, typer.Option("--force", help="Rebuild engines that are up to date too.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be built, and why.")] = False,
    print_trtexec: Annotated[bool, typer.Option("--print-trtexec", help="Print trtexec commands instead.")] = False,
) -> None:
    """Export, optimize, build and verify every component of a pipeline."""
    from sdtrt import config as configs

    if add_profile:
        _add_profiles(model, bundle, add_profile, _options_on_command_line(context), force=force, dry_run=dry_run)
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
        profiles=profiles or None,
        components=components or None,
        lora=lora or None,
        controlnet=controlnet or None,
        revision=revision,
        variant=variant,
    )
    if print_trtexec:
        show_trtexec(recipe)
        return
    if bundle is None:
        raise typer.BadParameter("the folder of the bundle is missing", param_hint="--out")
    with progress("build") as report:
        report("looking at the model", 0.0)
        from sdtrt.builder import build
        from sdtrt.builder.planning import plan_build

        disable_library_progress()
        plan = plan_build(recipe, bundle, force)
    show_plan(plan)
    show_estimated_memory(plan, bundle)
    if dry_run:
        out.print("nothing was built")
        return
    with progress("build", Countdown(plan.expected_s)) as report:
        built = build.run(plan, bundle, report)
    show_bundle(built)


def _options_on_command_line(context: typer.Context) -> set[str]:
    """Arguments and options that the user typed, by their names, such as "--add-profile"."""
    names = {p.name: max(p.opts, key=len) for p in context.command.params if p.name}
    sources = {name: context.get_parameter_source(name) for name in names}
    return {names[name] for name, source in sources.items() if source and source.name == "COMMANDLINE"}


def _add_profiles(
    model: str | None, bundle: Path | None, profiles: list[str], used_options: set[str], *, force: bool, dry_run: bool
) -> None:
    """Add profiles to the bundle, which is `bundle` or `model`; with both, `model` is the checkpoint's new place."""
    from sdtrt.bundle.manifest import MANIFEST

    if other := used_options - {"model", "--out", "--add-profile", "--force", "--dry-run"}:
        raise ConfigError(
            "--add-profile uses the recipe of the bundle",
            slug="add-profile-options",
            received=", ".join(sorted(other)),
            expected="--add-profile with --dry-run or --force alone",
            hint="leave out --add-profile to build with another recipe",
        )
    if bundle is None and model is None:
        raise typer.BadParameter("the bundle is missing", param_hint="--add-profile")
    if bundle is None or (model is not None and (Path(model) / MANIFEST).is_file()):
        source, model = Path(model or ""), None
        if bundle is not None and bundle.resolve() != source.resolve():
            raise ConfigError(
                "sizes are added to a bundle in place",
                slug="add-profile-out",
                received=f"{source} and --out {bundle}",
                expected="one bundle",
                hint="to keep the bundle as it is, copy its folder first",
            )
        bundle = source
    with progress("add profiles") as report:
        report("looking at the bundle", 0.0)
        from sdtrt.builder import add_profiles

        disable_library_progress()
        plan = add_profiles.plan(bundle, profiles, model, force)
        if not dry_run:
            built = add_profiles.run(plan, bundle, report)
    if dry_run:
        show_plan(plan)
        out.print("nothing was built")
        return
    show_bundle(built)
    for step in plan.steps:
        if step.action == "reuse":
            out.print(f"{step.spec.name} was kept: {step.reasons[0]}", markup=False, soft_wrap=True)


def show_trtexec(recipe: BuildConfig) -> None:
    """Print the trtexec commands of TensorRT 10 and 11 for every component; needs neither TensorRT nor a GPU."""
    from sdtrt import engines
    from sdtrt.builder.planning import resolve
    from sdtrt.engines.backends.tensorrt import BACKEND
    from sdtrt.engines.backends.tensorrt.profiling.trtexec_command import TrtexecCommand

    note = "# run in the bundle folder; options: {keep_onnx: true} in the recipe keeps the ONNX files"
    out.print(note, style="dim", markup=False)
    recipe_options = recipe.options if recipe.backend == BACKEND.name else {}
    engine_options = engines.Backend.check_options(BACKEND, recipe_options)
    _, _, specs, profiles = resolve(recipe)
    for name, spec in specs.items():
        if recipe.components is not None and name not in recipe.components:
            continue
        for major, release in ((10, "10.12 to 10.16"), (11, "11")):
            trtexec = TrtexecCommand(spec, profiles, engine_options, major)
            for command in (trtexec.build(), trtexec.run(recipe.profile_runs)):
                out.print(f"# {name}, TensorRT {release}", style="dim", markup=False)
                out.print(command, markup=False, soft_wrap=True)


def show_plan(plan: BuildPlan) -> None:
    """Print what a build does with each component, and why."""
    grid = table("component", "action", "weights", "time", "why", numbers=("weights", "time"))
    for step in plan.steps:
        time = format_duration(step.expected_s) if step.action == "build" else "-"
        grid.add_row(step.spec.name, step.action, format_bytes(step.weight_bytes), time, "\n".join(step.reasons))
    out.print(grid)
    out.print(f"profiles: {'; '.join(map(str, plan.profiles))}", soft_wrap=True)
    disk, time = format_bytes(plan.new_bytes), format_duration(plan.expected_s)
    out.print(f"new on disk: about {disk}; time, from earlier builds here: {time}")


def show_bundle(bundle: Bundle) -> None:
    """Print weight sizes, ONNX node counts, errors against eager PyTorch, build times and memory of a bundle."""
    grid = table("component", "weights", "nodes", "error against eager", "seconds", numbers=("weights", "seconds"))
    for name, c in bundle.manifest.components.items():
        nodes = f"{c.passes[0].nodes_before} -> {c.passes[-1].nodes_after}" if c.passes else "-"
        error = f"{max(c.parity.values()):.1e}" if c.parity else "-"
        grid.add_row(name, format_bytes(c.weight_bytes), nodes, error, f"{sum(c.seconds.values()):.1f}")
    out.print(grid)
    for name, c in bundle.manifest.components.items():
        for note in (*(n for p in c.passes if p.name == "widen_fp32" for n in p.notes), *c.notes):
            text = note if len(note) < MAX_NOTE_CHARS else f"{note[:MAX_NOTE_CHARS]} ..."
            out.print(f"{name}: {text}", markup=False)
        if c.quantization is not None:
            out.print(f"{name}: {describe_quantization(c.quantization)}", markup=False, soft_wrap=True)
    out.print(f"sizes: {'; '.join(bundle.manifest.profiles)}", soft_wrap=True)
    show_recorded_memory(bundle.manifest)
    image = bundle.manifest.image
    if image:
        out.print(
            f"image against eager: PSNR {image['psnr_db']:.1f} dB, SSIM {image.get('ssim', math.nan):.3f}, "
            f"the worst of {image.get('images', 1):.0f} after {image['steps']:.0f} steps"
        )
    out.print(f"bundle: [bold]{bundle.path}[/]", soft_wrap=True)


def describe_quantization(quantization: Quantization) -> str:
    """Number of quantized layers; and where their errors were measured, the sum and the layers kept in fp16 for it."""
    text = f"{len(quantization.layers)} layers in {quantization.scheme}"
    errors = quantization.errors
    if not errors:
        return text
    error = math.hypot(*(errors[name] for name in quantization.layers))
    text += f", which put the output off by {error:.2g}; {len(quantization.kept)} more stay fp16"
    sensitive = [f"{name} ({errors[name]:.2g})" for name in quantization.kept[:MAX_SENSITIVE_LAYERS]]
    return f"{text}, the worst {', '.join(sensitive)}" if sensitive else text
