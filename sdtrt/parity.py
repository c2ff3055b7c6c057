"""Engines against eager PyTorch: each component on the same inputs, and the whole image from the same seed."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdtrt import export, models, source
from sdtrt.errors import VerifyError
from sdtrt.pipeline import load, load_engines, timed
from sdtrt.run import ImageRun
from sdtrt.store import Bundle

if TYPE_CHECKING:
    from torch import nn

    from sdtrt.engines import Engine

Progress = Callable[[str, float], None]
PROMPT = "a photograph of a lighthouse at dusk"
# Largest relative error of a component and smallest PSNR of an image, in dB, by precision of the graph. fp32 engines
# differ from eager in the order of sums only; 40 dB is beyond what an eye can tell.
LIMITS = {"fp32": (1e-3, 40.0), "fp16": (5e-2, 25.0)}


@dataclass(frozen=True)
class Row:
    """One comparison: what was compared, the figure, its limit, and whether it holds."""

    what: str
    metric: str
    value: float
    limit: float
    passed: bool


def verify(
    bundle: str | os.PathLike[str] | Bundle,
    model: str | None = None,
    steps: int = 4,
    full: bool = False,
    progress: Progress = lambda label, done: None,
) -> list[Row]:
    """Compare every component, at the least and the best size of every profile, and one image with eager PyTorch.

    `full` adds the largest size, which may need many times the memory.

    `model` is where the checkpoint lies now, by default where it was built from. Raises VerifyError only when the
    checkpoint is another one; rows that do not pass are for the caller to judge.
    """
    bundle = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle)
    manifest = bundle.manifest
    config = manifest.config
    folder = source.resolve(model or manifest.model, config.get("revision"), config.get("variant"))
    family = models.load(manifest.family)
    oracle = family.components(folder, "fp32")
    loaded = load_engines(bundle)
    limit, rows = LIMITS[manifest.precision][0], []
    for index, (name, engine) in enumerate(loaded.items()):
        progress(f"{name}: comparing", index / (len(loaded) + 1))
        bundle.check_files(name)
        part = engine.spec.attribute
        built, found = manifest.components[name].key["weights"], source.weights_digest(folder, part)
        if built != found:
            raise VerifyError(
                f"the weights of {part} are not those that the bundle was built from",
                slug="verify-other-weights",
                received=f"{found} in {folder}",
                expected=built,
                hint="name the right checkpoint with --model, or rebuild",
            )
        module = oracle[name].load(folder)
        points = [(p, point) for p in manifest.shape_profiles for point in ("min", "opt", *["max"][:full])]
        for sizes in {tuple(sorted(p.sizes(point).items())): p.sizes(point) for p, point in points}.values():
            error = component_error(engine, module, sizes)
            at = ",".join(f"{k}={v}" for k, v in sizes.items())
            rows.append(Row(f"{name} at {at}", "relative error", error, limit, error <= limit))
    progress("image: comparing", len(loaded) / (len(loaded) + 1))
    rows.append(image_row(bundle, folder, steps)[0])
    progress("done", 1.0)
    return rows


def component_error(engine: Engine, module: nn.Module, sizes: Mapping[str, int]) -> float:
    """Worst ‖engine - eager‖ / ‖eager‖ over the outputs; infinite when the engine's result is not finite."""
    import torch

    worst, inputs = 0.0, export.sample_inputs(engine.spec, sizes)
    outputs = engine(**{n: t.to(engine.device) for n, t in inputs.items()})
    with torch.inference_mode():
        expected = module(**{n: t.float() if t.is_floating_point() else t for n, t in inputs.items()})
    for (_, got), want in zip(outputs.items(), expected, strict=True):
        difference = got.cpu().double() - want.double()
        error = float(difference.norm() / want.double().norm().clamp(min=1e-12))
        worst = max(worst, error if math.isfinite(error) else math.inf)
    return worst


def image_row(bundle: Bundle, folder: Path, steps: int) -> tuple[Row, ImageRun]:
    """PSNR of an image of `steps` steps against eager, same seed and prompt, at the first profile's optimum.

    Also where the time of the engines' image went.
    """
    sizes = bundle.manifest.shape_profiles[0].sizes("opt")
    limit = LIMITS[bundle.manifest.precision][1]
    pipe = load(bundle)
    size = {"height": sizes["H"], "width": sizes["W"]}
    image, run = timed(pipe, lambda: _image(pipe, sizes, steps), steps=steps, images=1, **size)
    value = psnr(image, _image(eager(folder), sizes, steps))
    return Row(f"image, {steps} steps", "PSNR (dB)", value, limit, value >= limit), run


def psnr(image: Any, reference: Any) -> float:
    """10 log10(1 / mean squared error) of arrays in 0..1; infinite for equal ones, -infinite for NaN."""
    error = float(((image - reference) ** 2).mean())
    if math.isnan(error):
        return -math.inf
    return math.inf if error == 0 else 10 * math.log10(1 / error)


def eager(folder: Path, **parts: Any) -> Any:
    """The stock pipeline of a checkpoint in float32 on the CPU: the reference."""
    import diffusers
    import torch

    family = models.family_of(folder)
    cls = getattr(diffusers, family.pipelines["txt2img"])
    index = models.read_json(folder / "model_index.json")
    if "safety_checker" in index:
        parts |= {"safety_checker": None, "requires_safety_checker": False}
    pipe = cls.from_pretrained(folder, dtype=torch.float32, use_safetensors=True, local_files_only=True, **parts)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def _image(pipe: Any, sizes: Mapping[str, int], steps: int) -> Any:
    import torch

    pipe.set_progress_bar_config(disable=True)
    return pipe(
        PROMPT,
        height=sizes["H"],
        width=sizes["W"],
        num_inference_steps=steps,
        generator=torch.Generator().manual_seed(0),
        output_type="np",
    ).images
