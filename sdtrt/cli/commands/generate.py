"""`sdtrt generate`: pictures from a bundle."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from sdtrt.cli import prompt_inputs
from sdtrt.cli.console import hush, out, progress, shown_warnings, table
from sdtrt.config import LoraEntry
from sdtrt.errors import ConfigError, SdtrtError

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

    from sdtrt.pipelines.unbuilt_sizes import OnUnsupportedSize
    from sdtrt.plan.image_timing import ImageRun

EXAMPLES = 'Example: [bold]sdtrt generate bundle --prompt "a red fox in the snow" --steps 30 --seed 7 --out fox.png[/]'


def run(
    bundle: Annotated[Path, typer.Argument(help="Folder of the bundle, or owner/name on the hub.")],
    prompt: Annotated[str, typer.Option("--prompt", "-p", help="What to show.")],
    image: Annotated[Path, typer.Option("--out", "-o", help="File to write; more images get -2, -3 ...")] = Path(
        "out.png"
    ),
    negative: Annotated[str | None, typer.Option(help="What to avoid.")] = None,
    steps: Annotated[int, typer.Option(min=1, help="Denoising steps.")] = 30,
    guidance: Annotated[float | None, typer.Option(help="Guidance scale; 1 or less switches it off.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the noise; drawn and printed when left out.")] = None,
    height: Annotated[int | None, typer.Option(help="Pixels; by default what the bundle is tuned for.")] = None,
    width: Annotated[int | None, typer.Option(help="Pixels; by default what the bundle is tuned for.")] = None,
    num_images: Annotated[int, typer.Option(min=1, help="Images of this prompt.")] = 1,
    source: Annotated[
        Path | None, typer.Option("--image", help="Picture to start from; it is scaled to the size asked for.")
    ] = None,
    mask: Annotated[Path | None, typer.Option(help="White where --image is to be made anew.")] = None,
    strength: Annotated[
        float | None, typer.Option(min=0, max=1, help="How far to leave --image: 0 keeps it, 1 keeps nothing.")
    ] = None,
    control: Annotated[
        list[Path] | None, typer.Option(help="Picture for a ControlNet; one for each that was built in.")
    ] = None,
    control_scale: Annotated[float | None, typer.Option(help="How strongly the ControlNet acts.")] = None,
    clip_skip: Annotated[int | None, typer.Option(min=0, help="Layers of the text encoder to leave out.")] = None,
    scheduler: Annotated[str | None, typer.Option(help="A diffusers scheduler, such as DPMSolverMultistep.")] = None,
    on_unsupported_size: Annotated[
        str, typer.Option(help='A size that was not built: "error", or "eager" for the checkpoint\'s own modules.')
    ] = "error",
    model: Annotated[
        str | None, typer.Option(help="Where the checkpoint lies now, for --on-unsupported-size eager.")
    ] = None,
    lora: Annotated[
        list[str] | None,
        typer.Option(help="LoRA, as FILE or FILE:SCALE, for engines that take other weights; may be repeated."),
    ] = None,
    low_memory: Annotated[
        bool, typer.Option("--low-memory", help="Hold one engine in memory at a time: slower, and the same pictures.")
    ] = False,
    trust: Annotated[
        bool, typer.Option("--trust", help="Load native code that was pulled from a hub: you know its author.")
    ] = False,
    record: Annotated[
        Path | None, typer.Option(help="Write where the time went as JSON, for sdtrt analyze --run.")
    ] = None,
) -> None:
    """Make pictures and say where the time went."""
    prompt_inputs.check_kind(image)
    started = time.perf_counter()
    with progress("generate") as report:
        report("loading engines", 0.0)
        from sdtrt.bundle import hub
        from sdtrt.pipelines.engine_loading import engines_of
        from sdtrt.pipelines.load import load

        opened = hub.open_or_pull(bundle)
        hush()
        pipe = load(
            opened,
            prompt_inputs.task_of(source, mask, control or ()),
            on_unsupported_size=cast("OnUnsupportedSize", on_unsupported_size),
            model=model,
            low_memory=low_memory,
            trust=trust,
        )
        if scheduler:
            use_scheduler(pipe, scheduler)
        if lora:
            report("switching LoRAs", 0.5)
            use_loras(pipe, [LoraEntry.parse(entry) for entry in lora])
    best = opened.manifest.shape_profiles[0].sizes("opt")
    loaded = time.perf_counter() - started
    seed = secrets.randbits(32) if seed is None else seed
    pixels = {"height": height or best["H"], "width": width or best["W"]}
    call: dict[str, Any] = {
        **prompt_inputs.prompt_arguments(pipe, prompt, negative, clip_skip),
        **prompt_inputs.picture_arguments(pipe, source, mask, control or (), (pixels["width"], pixels["height"])),
        "num_inference_steps": steps,
        "guidance_scale": guidance,
        "num_images_per_prompt": num_images,
        "strength": strength,
        "controlnet_conditioning_scale": control_scale,
        **pixels,
    }
    call = {name: value for name, value in call.items() if value is not None}
    with shown_warnings():
        images, timing = timed_call(pipe, seed, call)
    paths = [image if i == 0 else image.with_stem(f"{image.stem}-{i + 1}") for i in range(len(images))]
    image.parent.mkdir(parents=True, exist_ok=True)
    for picture, path in zip(images, paths, strict=True):
        picture.save(path)
    show_times(timing, opened.manifest.backend, loaded)
    if lora:
        out.print(f"LoRA: {pipe.lora_switch.last}", markup=False, soft_wrap=True)
    for name, engine in engines_of(pipe).items():
        for note in engine.notes():
            out.print(f"{name}: {note}", markup=False, soft_wrap=True)
    if record:
        timing.save(record)
    size = "{width}x{height}".format(**pixels)
    out.print(f"[bold]{', '.join(map(str, paths))}[/]  seed {seed}, {size}, {steps} steps", soft_wrap=True)


def timed_call(pipe: DiffusionPipeline, seed: int, call: dict[str, Any]) -> tuple[list[Any], ImageRun]:
    """Run the pipeline with a progress bar over its steps; returns PIL images and where the time went.

    The size is given in `call`, also to pipelines that take it from their picture.
    """
    import inspect

    import torch

    from sdtrt.pipelines.timed_call import timed

    pipe.set_progress_bar_config(disable=True)
    steps = call["num_inference_steps"]
    with progress("denoise") as report:

        def on_step(_: Any, index: int, __: Any, tensors: dict[str, Any]) -> dict[str, Any]:
            if out.is_terminal:
                report(f"step {index + 1} of {steps}", (index + 1) / steps)
            return tensors

        def run() -> list[Any]:
            generator = torch.Generator().manual_seed(seed)
            images: list[Any] = pipe(generator=generator, callback_on_step_end=on_step, **arguments).images
            return images

        known = inspect.signature(pipe.__call__).parameters
        arguments = {n: value for n, value in call.items() if n in known or n not in ("height", "width")}
        prompts = 1 if isinstance(call.get("prompt", ""), str) else len(call["prompt"])
        count = prompts * call.get("num_images_per_prompt", 1)
        try:
            return timed(pipe, run, steps=steps, images=count, height=call["height"], width=call["width"])
        except ValueError as exc:  # diffusers checks sizes and prompts itself
            raise exc if isinstance(exc, SdtrtError) else ConfigError(str(exc), slug="call") from exc


def show_times(timing: ImageRun, backend: str, loaded: float) -> None:
    """One line per stage."""
    grid = table("stage", "time", "", numbers=("time",))
    grid.add_row("load", f"{loaded:.2f} s", backend)
    inside_ms = 0.0
    for name, calls in timing.engines.items():
        inside_ms += calls.total_ms
        count = "1 call" if calls.count == 1 else f"{calls.count} calls"
        grid.add_row(name, f"{calls.total_ms / 1e3:.2f} s", f"{count}, {calls.total_ms / calls.count:.1f} ms each")
    grid.add_row("scheduler, rest", f"{(timing.wall_ms - inside_ms) / 1e3:.2f} s", "")
    grid.add_row("image, total", f"{timing.wall_ms / 1e3:.2f} s", "without loading")
    out.print(grid)


def use_loras(pipe: DiffusionPipeline, entries: Sequence[LoraEntry]) -> None:
    """Load LoRAs and let all act, in one switch."""
    if not hasattr(pipe, "lora_switch"):
        pipe.load_lora_weights(entries[0].path)  # says why it cannot
    names = [f"lora_{number}" for number in range(len(entries))]
    with pipe.lora_switch.together():
        for name, entry in zip(names, entries, strict=True):
            pipe.load_lora_weights(entry.path, adapter_name=name)
        pipe.set_adapters(names, [entry.scale for entry in entries])


def use_scheduler(pipe: DiffusionPipeline, name: str) -> None:
    """Swap the scheduler; ConfigError lists those that fit when there is no such one."""
    fitting = {c.__name__.removesuffix("Scheduler").lower(): c for c in pipe.scheduler.compatibles}
    scheduler = fitting.get(name.removesuffix("Scheduler").lower())
    if scheduler is None:
        raise ConfigError(
            "no scheduler of that name fits this pipeline",
            slug="scheduler",
            received=name,
            expected=", ".join(sorted(c.__name__.removesuffix("Scheduler") for c in fitting.values())),
        )
    pipe.scheduler = scheduler.from_config(pipe.scheduler.config)
