"""`sdtrt verify`: every component of a bundle and whole images against eager PyTorch."""

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

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
from sdtrt.verification.reference_images import ReferenceImages, make_image

Progress = Callable[[str, float], None]


@dataclass(frozen=True)
class Row:
    """One comparison: its subject, the figure, the limit, whether the figure is within it, and a note.

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
    """Images of the engines against those of eager, one per seed; `run` has the times of the first."""

    steps: int
    images: tuple[image_metrics.Likeness, ...]
    precision: str
    run: ImageRun | None

    def rows(self) -> list[Row]:
        """PSNR and SSIM of every image."""
        limits, rows = LIMITS[self.precision], list[Row]()
        for seed, likeness in enumerate(self.images):
            what, note = f"image, {self.steps} steps, seed {seed}", "; ".join(likeness.faults)
            for metric, value, limit in (
                ("PSNR (dB)", likeness.psnr_db, limits.psnr_db),
                ("SSIM", likeness.ssim, limits.ssim),
            ):
                rows.append(Row(what, metric, value, limit, value >= limit and not note, note))
        return rows

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

    Args:
        bundle: the bundle or its folder.
        model: where the checkpoint is now, by default where the bundle was built from.
        steps: denoising steps of the images.
        full: compare the largest sizes even when an estimate says that they take too long or too much memory.
        progress: receives a label and the share done, 0 to 1.
        trust: as in `load`: allow engines that are native code from elsewhere.

    Returns:
        A row per figure. Rows that do not pass raise nothing: the caller judges them.

    Raises:
        VerifyError: the checkpoint is another one, or gives NaN or Inf itself.
    """
    bundle = Bundle.open(bundle)
    bundle.check_beside()
    manifest = bundle.manifest
    config, folder = manifest.build_config, bundle.checkpoint(model)
    family = models.load(manifest.family)
    specs = family.components(folder, "fp32", checkpoint.controlnets(config.controlnet))
    loras = lora.baked(config.lora, specs, folder)
    engines = load_engines(bundle, LoadOptions(trust=trust, low_memory=True))
    for engine in engines.values():
        engine.close()  # it is loaded again after eager has run
    progress("eager: making images", 0.0)
    profiles, limit = manifest.shape_profiles, LIMITS[manifest.precision].error
    reference = reference_images.compute(folder, profiles[0].sizes("opt"), steps, loras)
    rows: list[Row] = []
    for index, (name, engine) in enumerate(engines.items()):
        bundle.check_files(name)
        _check_weights(bundle, name, specs[name].weights(folder))

        def report(label: str, share: float, name: str = name, index: int = index) -> None:
            progress(f"{name}: {label}", (index + share) / (len(engines) + 1))

        module = specs[name].load(folder)
        lora.bake(module, specs[name], loras, folder)
        recorded = reference.inputs.get(name)
        outputs = reference_outputs.compute(
            module, engine.spec, profiles, full=full, recorded_inputs=recorded, report=report
        )
        del module
        malloc.give_back()
        rows += _rows(name, component_check.check_component(engine, outputs, limit, report))
        engine.close()
    progress("image: comparing", len(engines) / (len(engines) + 1))
    rows += check_images(bundle, reference, trust=trust).rows()
    progress("done", 1.0)
    return rows


def _check_weights(bundle: Bundle, name: str, weights: Path) -> None:
    """VerifyError unless the weights in this folder are those of the build."""
    built = bundle.manifest.components[name].key["weights"]
    if (digest := checkpoint.weights_digest(weights.parent, weights.name)) != built:
        raise VerifyError(
            f"the weights of {name} are not those that the bundle was built from",
            slug="verify-other-weights",
            received=f"{digest} in {weights}",
            expected=built,
            hint="name the right checkpoint with --model, or rebuild",
        )


def _rows(name: str, report: component_check.ComponentReport) -> list[Row]:
    limit = report.limit
    rows = [Row(f"{name} at {p}", "relative error", e, limit, e <= limit) for p, e in report.figures.items()]
    return rows + [Row(name, "relative error", math.nan, limit, True, note) for note in report.notes]


def check_images(
    bundle: Bundle,
    reference: ReferenceImages,
    progress: Callable[[str], None] = lambda label: None,
    trust: bool = False,
) -> ImageCheck:
    """Make images with the engines, at the best size of the first profile, and compare them with those of eager.

    NaN or Inf in a latent is a fault of its image, with the message of the pipeline.

    Args:
        bundle: the bundle; it may still be in its staging folder.
        reference: images of eager at the same size.
        progress: receives a label before each image.
        trust: as in `load`: allow engines that are native code from elsewhere.
    """
    sizes, steps = bundle.manifest.shape_profiles[0].sizes("opt"), reference.steps
    pipe, compared, first = load(bundle, trust=trust), list[image_metrics.Likeness](), None
    size = {"height": sizes["H"], "width": sizes["W"]}
    for seed, expected in enumerate(reference.images):
        progress(f"comparing with eager, seed {seed}")
        try:
            image, run = timed(pipe, partial(make_image, pipe, sizes, steps, seed), steps=steps, images=1, **size)
        except NonFiniteError as exc:
            compared.append(image_metrics.Likeness(-math.inf, math.nan, math.nan, (exc.message,)))
        else:
            compared.append(image_metrics.likeness(image, expected))
            first = first or run
    for engine in engines_of(pipe).values():
        engine.close()
    return ImageCheck(steps, tuple(compared), bundle.manifest.precision, first)
