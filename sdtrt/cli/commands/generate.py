"""`sdtrt generate`: images from a bundle."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from sdtrt.cli import options, prompt_inputs
from sdtrt.cli.console import disable_library_progress, out, progress, show_fallback_warnings, table
from sdtrt.config import LoraEntry
from sdtrt.errors import ConfigError, SdtrtError

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

    from sdtrt.pipelines.unbuilt_sizes import OnUnsupportedSize
    from sdtrt.plan.image_timing import ImageRun

EXAMPLES = 'Example: [bold]sdtrt generate bundle --prompt "a red fox in the snow" --steps 30 --seed 7 --out fox.png[/]'


def run(
    bundle: Annotated[Path, typer.Argument(help="Bundle folder, or owner/name on the hub.")],
    prompt: Annotated[str, typer.Option("--prompt", "-p", help="Prompt; (word:1.2) weights a part of it.")],
    image: Annotated[Path, typer.Option("--out", "-o", help="Image file; more get -2, -3 ...")] = Path("out.png"),
    negative: Annotated[str | None, typer.Option(help="Negative prompt.")] = None,
    steps: options.Steps = 30,
    guidance: Annotated[float | None, typer.Option(help="Guidance scale; 1 or less switches guidance off.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the noise; by default random, and printed.")] = None,
    height: Annotated[int | None, typer.Option(help="Height in pixels; by default the bundle's optimum.")] = None,
    width: Annotated[int | None, typer.Option(help="Width in pixels; by default the bundle's optimum.")] = None,
    num_images: Annotated[int, typer.Option(min=1, help="Images to generate.")] = 1,
    source: Annotated[Path | None, typer.Option("--image", help="Initial image of img2img or inpainting.")] = None,
    mask: Annotated[Path | None, typer.Option(help="Inpainting mask, white where --image is repainted.")] = None,
    strength: Annotated[float | None, typer.Option(min=0, max=1, help="0 keeps --image, 1 ignores it.")] = None,
    control: Annotated[list[Path] | None, typer.Option(help="ControlNet image; repeat it per ControlNet.")] = None,
    control_scale: Annotated[float | None, typer.Option(help="ControlNet conditioning scale.")] = None,
    clip_skip: Annotated[int | None, typer.Option(min=0, help="Last layers of the text encoder to skip.")] = None,
    scheduler: Annotated[str | None, typer.Option(help="A diffusers scheduler, such as DPMSolverMultistep.")] = None,
    on_unsupported_size: Annotated[
        str, typer.Option(help='A size outside all profiles: "error", or "eager" to run the checkpoint with PyTorch.')
    ] = "error",
    model: options.Checkpoint = None,
    lora: Annotated[
        list[str] | None, typer.Option(help="LoRA to apply to the engines, as FILE or FILE:SCALE; may be repeated.")
    ] = None,
    low_memory: Annotated[bool, typer.Option("--low-memory", help="Keep one engine in memory at a time.")] = False,
    trust: options.TrustRemoteCode = False,
    record: Annotated[Path | None, typer.Option(help="Write times as JSON, for sdtrt analyze --run.")] = None,
) -> None:
    """Generate images and show the time of each engine."""
    prompt_inputs.check_image_format(image)
    started = time.perf_counter()
    with progress("generate") as report:
        report("loading engines", 0.0)
        from sdtrt.bundle import hub
        from sdtrt.pipelines.engine_loading import engines_of
        from sdtrt.pipelines.load import load

        opened = hub.open_or_pull(bundle)
        disable_library_progress()
        pipe = load(
            opened,
            prompt_inputs.select_task(source, mask, control or ()),
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
    load_s = time.perf_counter() - started
    seed = secrets.randbits(32) if seed is None else seed
    pixels = {"height": height or best["H"], "width": width or best["W"]}
    call: dict[str, Any] = {
        **prompt_inputs.prompt_arguments(pipe, prompt, negative, clip_skip),
        **prompt_inputs.image_arguments(pipe, source, mask, control or (), (pixels["width"], pixels["height"])),
        "num_inference_steps": steps,
        "guidance_scale": guidance,
        "num_images_per_prompt": num_images,
        "strength": strength,
        "controlnet_conditioning_scale": control_scale,
        **pixels,
    }
    call = {name: value for name, value in call.items() if value is not None}
    with show_fallback_warnings():
        images, timing = timed_call(pipe, seed, call)
    paths = [image if i == 0 else image.with_stem(f"{image.stem}-{i + 1}") for i in range(len(images))]
    image.parent.mkdir(parents=True, exist_ok=True)
    for generated, path in zip(images, paths, strict=True):
        generated.save(path)
    show_times(timing, opened.manifest.backend, load_s)
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
    """Call the pipeline with a progress bar; returns PIL images and the time of each engine.

    `call` has the arguments of the pipeline, and height and width even for pipelines that take them from their image.
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

        parameters = inspect.signature(pipe.__call__).parameters
        arguments = {n: value for n, value in call.items() if n in parameters or n not in ("height", "width")}
        prompts = 1 if isinstance(call.get("prompt", ""), str) else len(call["prompt"])
        count = prompts * call.get("num_images_per_prompt", 1)
        try:
            return timed(pipe, run, steps=steps, images=count, height=call["height"], width=call["width"])
        except ValueError as exc:  # diffusers checks sizes and prompts itself
            raise exc if isinstance(exc, SdtrtError) else ConfigError(str(exc), slug="call") from exc


def show_times(timing: ImageRun, backend: str, load_s: float) -> None:
    """Print the time of loading, of each engine, and of the rest of the pipeline."""
    grid = table("stage", "time", "", numbers=("time",))
    grid.add_row("load", f"{load_s:.2f} s", backend)
    for name, calls in timing.engines.items():
        count = "1 call" if calls.count == 1 else f"{calls.count} calls"
        grid.add_row(name, f"{calls.total_ms / 1e3:.2f} s", f"{count}, {calls.total_ms / calls.count:.1f} ms each")
    rest_ms = timing.wall_ms - sum(calls.total_ms for calls in timing.engines.values())
    grid.add_row("scheduler, rest", f"{rest_ms / 1e3:.2f} s", "")
    grid.add_row("image, total", f"{timing.wall_ms / 1e3:.2f} s", "without loading")
    out.print(grid)


def use_loras(pipe: DiffusionPipeline, entries: Sequence[LoraEntry]) -> None:
    """Load LoRAs and activate all of them with one refit."""
    if not hasattr(pipe, "lora_switch"):
        pipe.load_lora_weights(entries[0].path)  # raises the error that explains what is missing
    names = [f"lora_{number}" for number in range(len(entries))]
    with pipe.lora_switch.together():
        for name, entry in zip(names, entries, strict=True):
            pipe.load_lora_weights(entry.path, adapter_name=name)
        pipe.set_adapters(names, [entry.scale for entry in entries])


def use_scheduler(pipe: DiffusionPipeline, name: str) -> None:
    """Replace the scheduler; ConfigError lists the compatible ones for any other name."""
    compatible = {c.__name__.removesuffix("Scheduler").lower(): c for c in pipe.scheduler.compatibles}
    scheduler = compatible.get(name.removesuffix("Scheduler").lower())
    if scheduler is None:
        raise ConfigError(
            "no scheduler of that name is compatible with this pipeline",
            slug="scheduler",
            received=name,
            expected=", ".join(sorted(c.__name__.removesuffix("Scheduler") for c in compatible.values())),
        )
    pipe.scheduler = scheduler.from_config(pipe.scheduler.config)
