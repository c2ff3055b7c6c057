"""Engines against eager PyTorch: each component on the same inputs, and whole images from the same seeds."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from sdtrt import lora, models
from sdtrt.bundle.bundle import Bundle
from sdtrt.engines.accuracy import LIMITS
from sdtrt.errors import NonFiniteError, VerifyError
from sdtrt.models import checkpoint
from sdtrt.pipelines.engine_loading import LoadOptions, engines_of, load_engines
from sdtrt.pipelines.load import load
from sdtrt.pipelines.timed_call import timed
from sdtrt.plan.image_timing import ImageRun
from sdtrt.system import malloc
from sdtrt.verification import component_check, image_metrics, reference_images, reference_outputs
from sdtrt.verification.image_metrics import psnr
from sdtrt.verification.reference_images import Reference, image

if TYPE_CHECKING:
    pass

__all__ = ["ImageCheck", "Row", "check_images", "psnr", "verify"]

Progress = Callable[[str, float], None]


@dataclass(frozen=True)
class Row:
    """One comparison: what was compared, the figure, its limit, and whether it holds; `note` says what else to know.

    The figure is NaN for what was left out.
    """

    what: str
    metric: str
    value: float
    limit: float
    passed: bool
    note: str = ""


@dataclass(frozen=True)
class ImageCheck:
    """Images of the engines against those of eager, one per seed, and where the time of the first went."""

    steps: int
    images: tuple[image_metrics.Likeness, ...]
    precision: str
    run: ImageRun | None

    def rows(self) -> list[Row]:
        """PSNR and SSIM of every image."""
        limits, found = LIMITS[self.precision], list[Row]()
        for seed, likeness in enumerate(self.images):
            what, note = f"image, {self.steps} steps, seed {seed}", "; ".join(likeness.faults)
            values = (
                ("PSNR (dB)", likeness.psnr_db, limits.psnr_db),
                ("SSIM", likeness.ssim, limits.ssim),
            )
            found += [Row(what, m, value, limit, value >= limit and not note, note) for m, value, limit in values]
        return found

    def figures(self) -> dict[str, float]:
        """The worst of all images, for the manifest."""
        return {
            "psnr_db": min(999.0, *(i.psnr_db for i in self.images)),
            "ssim": min(i.ssim for i in self.images),
            "least_std": min(i.std for i in self.images),
            "images": len(self.images),
            "steps": self.steps,
        }


def verify(
    bundle: str | os.PathLike[str] | Bundle,
    model: str | None = None,
    steps: int = 4,
    full: bool = False,
    progress: Progress = lambda label, done: None,
    *,
    trust: bool = False,
) -> list[Row]:
    """Compare every component, at both ends and the best size of every profile, and images with eager PyTorch.

    The largest sizes are left out where an estimate says that they take too long or too much memory; `full` compares
    them all the same.

    `model` is where the checkpoint lies now, by default where it was built from. Raises VerifyError only when the
    checkpoint is another one or gives NaN itself; rows that do not pass are for the caller to judge. `trust` is that of
    `load`.
    """
    bundle = Bundle.open(bundle)
    bundle.check_beside()
    manifest = bundle.manifest
    config, folder = manifest.build_config, bundle.checkpoint(model)
    family = models.load(manifest.family)
    oracle = family.components(folder, "fp32", checkpoint.controlnets(config.controlnet))
    loras = lora.baked(config.lora, oracle, folder)
    loaded = load_engines(bundle, LoadOptions(trust=trust, low_memory=True))
    for engine in loaded.values():
        engine.close()  # it is loaded again when eager has answered
    progress("eager: making images", 0.0)
    made = reference_images.make(folder, manifest.shape_profiles[0].sizes("opt"), steps, loras)
    rows: list[Row] = []
    for index, (name, engine) in enumerate(loaded.items()):
        bundle.check_files(name)
        _check_weights(bundle, name, oracle[name].weights(folder))

        def report(label: str, share: float, name: str = name, index: int = index) -> None:
            progress(f"{name}: {label}", (index + share) / (len(loaded) + 1))

        module = oracle[name].load(folder)
        lora.bake(module, oracle[name], loras, folder)
        given, profiles = made.inputs.get(name), manifest.shape_profiles
        asked = reference_outputs.ask(module, engine.spec, profiles, full=full, given=given, report=report)
        del module
        malloc.give_back()
        rows += _rows(name, component_check.judge(engine, asked, LIMITS[manifest.precision].error, report))
        engine.close()
    progress("image: comparing", len(loaded) / (len(loaded) + 1))
    rows += check_images(bundle, folder, steps, loras, made=made, trust=trust).rows()
    progress("done", 1.0)
    return rows


def _check_weights(bundle: Bundle, name: str, weights: Path) -> None:
    """VerifyError unless the weights in this folder are those of the build."""
    built, found = (
        bundle.manifest.components[name].key["weights"],
        checkpoint.weights_digest(weights.parent, weights.name),
    )
    if built != found:
        raise VerifyError(
            f"the weights of {name} are not those that the bundle was built from",
            slug="verify-other-weights",
            received=f"{found} in {weights}",
            expected=built,
            hint="name the right checkpoint with --model, or rebuild",
        )


def _rows(name: str, verdict: component_check.ComponentReport) -> list[Row]:
    limit = verdict.limit
    rows = [Row(f"{name} at {p}", "relative error", e, limit, e <= limit) for p, e in verdict.figures.items()]
    return rows + [Row(name, "relative error", math.nan, limit, True, note) for note in verdict.notes]


def check_images(
    bundle: Bundle,
    folder: Path,
    steps: int,
    loras: Sequence[lora.BakedLora] = (),
    progress: Callable[[str], None] = lambda label: None,
    made: Reference | None = None,
    trust: bool = False,
) -> ImageCheck:
    """Make images of `steps` steps with the engines and compare them with eager's, at the first best size.

    `made` is what eager made before, with the same sizes and steps. NaN in a latent is a fault of its image like any
    other: the message of the pipeline stands with it.
    """
    sizes = bundle.manifest.shape_profiles[0].sizes("opt")
    made = made or reference_images.make(folder, sizes, steps, loras, progress)
    pipe, found, first = load(bundle, trust=trust), list[image_metrics.Likeness](), None
    size = {"height": sizes["H"], "width": sizes["W"]}
    for seed, expected in enumerate(made.images):
        progress(f"comparing with eager, seed {seed}")
        try:
            got, run = timed(pipe, partial(image, pipe, sizes, steps, seed), steps=steps, images=1, **size)
        except NonFiniteError as exc:
            found.append(image_metrics.Likeness(-math.inf, math.nan, math.nan, (exc.message,)))
        else:
            found.append(image_metrics.likeness(got, expected))
            first = first or run
    for engine in engines_of(pipe).values():
        engine.close()
    return ImageCheck(steps, tuple(found), bundle.manifest.precision, first)
