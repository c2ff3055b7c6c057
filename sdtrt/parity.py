"""Engines against eager PyTorch: each component on the same inputs, and the whole image from the same seed."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdtrt import lora, models, source
from sdtrt.compare import LIMITS, component_error
from sdtrt.config import LoraEntry
from sdtrt.errors import VerifyError
from sdtrt.pipeline import load, load_engines, timed
from sdtrt.run import ImageRun
from sdtrt.store import Bundle

Progress = Callable[[str, float], None]
PROMPT = "a photograph of a lighthouse at dusk"


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
    loras = lora.baked([LoraEntry.model_validate(e) for e in config.get("lora", ())], oracle, folder)
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
        lora.bake(module, oracle[name], loras, folder)
        points = [(p, point) for p in manifest.shape_profiles for point in ("min", "opt", *["max"][:full])]
        for sizes in {tuple(sorted(p.sizes(point).items())): p.sizes(point) for p, point in points}.values():
            error = component_error(engine, module, sizes)
            at = ",".join(f"{k}={v}" for k, v in sizes.items())
            rows.append(Row(f"{name} at {at}", "relative error", error, limit, error <= limit))
    progress("image: comparing", len(loaded) / (len(loaded) + 1))
    rows.append(image_row(bundle, folder, steps, loras)[0])
    progress("done", 1.0)
    return rows


def image_row(bundle: Bundle, folder: Path, steps: int, loras: Sequence[lora.BakedLora] = ()) -> tuple[Row, ImageRun]:
    """PSNR of an image of `steps` steps against eager, same seed and prompt, at the first profile's optimum.

    Also where the time of the engines' image went.
    """
    sizes = bundle.manifest.shape_profiles[0].sizes("opt")
    limit = LIMITS[bundle.manifest.precision][1]
    pipe = load(bundle)
    size = {"height": sizes["H"], "width": sizes["W"]}
    image, run = timed(pipe, lambda: _image(pipe, sizes, steps), steps=steps, images=1, **size)
    value = psnr(image, _image(eager(folder, loras), sizes, steps))
    return Row(f"image, {steps} steps", "PSNR (dB)", value, limit, value >= limit), run


def psnr(image: Any, reference: Any) -> float:
    """10 log10(1 / mean squared error) of arrays in 0..1; infinite for equal ones, -infinite for NaN."""
    error = float(((image - reference) ** 2).mean())
    if math.isnan(error):
        return -math.inf
    return math.inf if error == 0 else 10 * math.log10(1 / error)


def eager(folder: Path, loras: Sequence[lora.BakedLora] = (), **parts: Any) -> Any:
    """The stock pipeline of a checkpoint in float32 on the CPU, with LoRAs as diffusers loads them: the reference."""
    import diffusers
    import torch

    family = models.family_of(folder)
    cls = getattr(diffusers, family.pipelines["txt2img"])
    index = models.read_json(folder / "model_index.json")
    if "safety_checker" in index:
        parts |= {"safety_checker": None, "requires_safety_checker": False}
    pipe = cls.from_pretrained(folder, dtype=torch.float32, use_safetensors=True, local_files_only=True, **parts)
    pipe.set_progress_bar_config(disable=True)
    names = [f"lora_{number}" for number in range(len(loras))]
    with lora.quiet():
        for name, entry in zip(names, loras, strict=True):
            pipe.load_lora_weights(str(entry.path), adapter_name=name)
    if loras:
        pipe.set_adapters(names, [entry.scale for entry in loras])
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
