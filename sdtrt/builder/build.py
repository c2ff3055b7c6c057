"""build(): checkpoint in, verified bundle out.

Components are built one after the other, each by a `ComponentBuild`, in a staging folder next to the bundle. It takes
the bundle's place only when an image made with all engines matches that of eager PyTorch.
"""

import errno
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from sdtrt import config as configs
from sdtrt import models
from sdtrt.builder import build_times, progress_shares
from sdtrt.builder.build_plan import IMAGE, BuildPlan, ComponentPlan
from sdtrt.builder.component_build import ComponentBuild
from sdtrt.builder.planning import plan_build
from sdtrt.builder.progress_shares import Progress
from sdtrt.bundle import staging
from sdtrt.bundle.bundle import Bundle
from sdtrt.bundle.manifest import PIPELINE, RECORD, Component, Manifest
from sdtrt.bundle.staging import Staging
from sdtrt.config import BuildConfig
from sdtrt.errors import BuildError, SdtrtError, VerifyError
from sdtrt.plan.image_timing import FILE as RUN
from sdtrt.system import env, files
from sdtrt.verification import reference_images, verify
from sdtrt.verification.reference_images import ReferenceImages


def build(
    model: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    config: str | os.PathLike[str] | BuildConfig | None = None,
    force: bool = False,
    progress: Progress = lambda label, done: None,
    **settings: Any,
) -> Bundle:
    """Build a model into a bundle; components whose key did not change are reused.

    A bundle that was at `out` is still there when anything is raised.

    Args:
        model: hub id, diffusers folder, or .safetensors checkpoint.
        out: folder of the bundle.
        config: YAML recipe, or a parsed one, which wins over `model` and `settings`.
        force: build every component again.
        progress: receives a label and the share done, 0 to 1.
        settings: fields of `BuildConfig`; they win over the recipe's.

    Raises:
        SdtrtError: ConfigError, ModelError, BackendUnavailable, ExportError, BuildError, VerifyError or BundleError.
    """
    if not isinstance(config, BuildConfig):
        config = configs.load(Path(config) if config else None, model=os.fspath(model), **settings)
    return run(plan_build(config, Path(out), force), Path(out), progress)


@contextmanager
def _disk_errors() -> Iterator[None]:
    """Translate the errors of a full or write-protected disk, whichever library was writing."""
    try:
        yield
    except SdtrtError:
        raise
    except OSError as exc:
        if exc.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS):
            raise
        raise BuildError(
            f"the output cannot be written: {exc.strerror}",
            slug="disk-full" if exc.errno in (errno.ENOSPC, errno.EDQUOT) else "disk-denied",
            received=exc.filename,
            hint="free some space, or build elsewhere with --out; finished components are kept",
        ) from exc


@_disk_errors()
def run(plan: BuildPlan, out: Path, progress: Progress = lambda label, done: None) -> Bundle:
    """Carry out a plan."""
    if all(s.action == "reuse" for s in plan.steps):
        present = Bundle.open(out)
        options = plan.options.model_dump(mode="json")
        if (present.manifest.options, present.manifest.shape_profiles) == (options, plan.profiles):
            staging.delete_leftovers(out)
            progress("up to date", 1.0)
            return present
    progress = progress_shares.forward_only(progress)
    with staging.staging(out) as stage:
        _check_space(out, plan)
        # Half precision engines are also compared at the inputs of eager's images.
        half = any(s.action == "build" and s.spec.dtype == "float16" for s in plan.steps)
        images = _reference_images(plan, lambda label: progress(f"image: {label}", 0.0)) if half else None
        lengths, total = progress_shares.components(plan)
        done, components = 0.0, {}
        for step in plan.steps:
            name, start = step.spec.name, done
            done += lengths[name]
            report = progress_shares.sub_progress(progress, (start / total, done / total), f"{name}: ")
            components[name] = _component(plan, step, stage, out, report, images)
        _copy_pipeline(plan, stage.path / PIPELINE)
        manifest = _manifest(plan, components)
        if {"unet", "vae_decoder"} <= components.keys():
            image_share = min(done / total, 1.0)
            figures = _check_image(
                plan, Bundle(stage.path, manifest), images, lambda label: progress(f"image: {label}", image_share)
            )
            manifest = manifest.model_copy(update={"image": figures})
        bundle = stage.commit(manifest)
    progress("done", 1.0)
    return bundle


def _reference_images(plan: BuildPlan, report: Callable[[str], None]) -> ReferenceImages | None:
    """Images of eager; None for a build that compares none."""
    if not plan.compares_images:
        return None
    sizes, steps = plan.profiles[0].sizes("opt"), plan.config.verify_steps
    return reference_images.compute(plan.folder, sizes, steps, plan.loras, report)


def _component(
    plan: BuildPlan, step: ComponentPlan, stage: Staging, out: Path, report: Progress, images: ReferenceImages | None
) -> Component:
    if step.present is not None:
        report(step.reasons[0], 0.0)
        if step.action == "reuse":
            stage.copy_component(step.present, out.resolve() / step.spec.name)
        return step.present
    with stage.component(step.spec.name) as folder:
        component = ComponentBuild(plan, step, folder, report, images).run()
        files.write_text(folder / RECORD, component.model_dump_json(indent=1))
    build_times.add(plan.entry(component.name, step.weight_bytes, component.seconds))
    return component


def _copy_pipeline(plan: BuildPlan, target: Path) -> None:
    """Copy the checkpoint without its weights: configs, tokenizers, scheduler."""
    shutil.rmtree(target, ignore_errors=True)
    # The configs of components that are left out too: specs are derived from all of them.
    parts = [*models.load(plan.family).configs(plan.folder), "scheduler", "tokenizer", "tokenizer_2"]
    for file in (file for part in parts for file in (plan.folder / part).glob("*.*")):
        if file.suffix in {".json", ".txt"} and "index.json" not in file.name:
            (target / file.parent.name).mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target / file.parent.name / file.name)
    shutil.copyfile(plan.folder / "model_index.json", target / "model_index.json")
    for name, folder in (plan.controlnets or {}).items():
        (target / name).mkdir(exist_ok=True)
        shutil.copyfile(folder / "config.json", target / name / "config.json")


def _manifest(plan: BuildPlan, components: Mapping[str, Component]) -> Manifest:
    return Manifest(
        family=plan.family,
        model=plan.config.model,
        backend=plan.backend.name,
        precision=plan.config.precision,
        profiles=tuple(map(str, plan.profiles)),
        options=plan.options.model_dump(mode="json"),
        config=plan.config.model_dump(mode="json"),
        environment=env.describe(),
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        components=dict(components),
    )


def _check_image(
    plan: BuildPlan, staged: Bundle, images: ReferenceImages | None, report: Callable[[str], None]
) -> dict[str, float]:
    """Compare images of the staged engines with eager's; the figures, or VerifyError when they differ too much."""
    started = time.perf_counter()
    images = images or _reference_images(plan, report)
    if images is None:
        return {}
    check = verify.check_images(staged, images, report)
    weights = sum(s.weight_bytes for s in plan.steps)
    build_times.add(plan.entry(IMAGE, weights, {"verify": time.perf_counter() - started}))
    if failed := [row for row in check.rows() if not row.passed]:
        raise VerifyError(
            "the image differs from that of eager PyTorch",
            slug="verify-image",
            received="; ".join(dict.fromkeys(r.note or f"{r.metric} {r.value:.3g} of {r.what}" for r in failed)),
            expected="; ".join(dict.fromkeys(f"{r.metric} of at least {r.limit:g}" for r in failed)),
            hint="build with --precision fp32, or name modules under `float32:` in the config (docs/black-images.md)",
        )
    if check.run is not None:
        check.run.save(staged.path / RUN)
    return check.figures()


def _check_space(out: Path, plan: BuildPlan) -> None:
    """Raise BuildError unless twice the weights fit: an engine and its ONNX file exist together for a moment."""
    free = shutil.disk_usage(out.resolve().parent).free
    if free < 2 * plan.new_bytes:
        raise BuildError(
            "the disk is too full for this build",
            slug="disk-full",
            received=f"{free / 1e9:.1f} GB free",
            expected=f"{2 * plan.new_bytes / 1e9:.1f} GB",
            hint="free some space, or build elsewhere with --out",
        )
