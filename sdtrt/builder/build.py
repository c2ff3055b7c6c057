"""build(): checkpoint in, verified bundle out.

Each component is run by eager PyTorch, exported, optimized and built; its engine is compared with what eager gave and
profiled, then dropped from memory. The bundle is put in its place only when an image made with all of it matches; until
then it lies beside.
"""

from __future__ import annotations

import errno
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdtrt import config as configs
from sdtrt import costs, lora, models
from sdtrt.builder import build_times, memory_estimate, progress_shares
from sdtrt.builder.build_plan import IMAGE, BuildPlan, ComponentPlan, forecast
from sdtrt.bundle import staging
from sdtrt.bundle.bundle import Bundle
from sdtrt.bundle.manifest import PIPELINE, RECORD, Change, Component, Manifest, Memory, Quantization
from sdtrt.bundle.staging import Staging
from sdtrt.config import BuildConfig
from sdtrt.engines import Engine, EngineContext, Source, accuracy
from sdtrt.errors import BuildError, SdtrtError, VerifyError
from sdtrt.export import onnx_export
from sdtrt.graph import optimize
from sdtrt.plan.image_timing import FILE as RUN
from sdtrt.quantization import activation_ranges, calibration_images, modelopt
from sdtrt.shapes.sample_inputs import sample_inputs
from sdtrt.shapes.spec import ComponentSpec
from sdtrt.system import env, files, malloc, process_memory
from sdtrt.verification import fp32_fallback, reference_images, reference_outputs, verify
from sdtrt.verification.fp32_fallback import GraphBackup
from sdtrt.verification.reference_images import Reference
from sdtrt.verification.reference_outputs import ReferenceOutputs

if TYPE_CHECKING:
    from torch import nn


Progress = Callable[[str, float], None]


def build(
    model: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    config: str | os.PathLike[str] | BuildConfig | None = None,
    force: bool = False,
    progress: Progress = lambda label, done: None,
    **settings: Any,
) -> Bundle:
    """Build `model` into a bundle at `out` and return it; components whose key did not change are reused.

    `config` is a YAML recipe; `settings` are fields of `BuildConfig` and win over it. `progress` is called with a label
    and the share done, 0 to 1. Raises ConfigError, ModelError, BackendUnavailable, ExportError, BuildError,
    VerifyError or BundleError; whatever is raised, a bundle that was at `out` is still there.
    """
    if not isinstance(config, BuildConfig):
        config = configs.load(Path(config) if config else None, model=os.fspath(model), **settings)
    return run(forecast(config, Path(out), force), Path(out), progress)


@contextmanager
def _disk_errors() -> Iterator[None]:
    """Translate what the file system says, whichever library was writing."""
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
    """Carry out a forecast."""
    if all(s.action == "reuse" for s in plan.steps):
        present = Bundle.open(out)
        if present.manifest.options == plan.options and present.manifest.shape_profiles == plan.profiles:
            staging.tidy(out)
            progress("up to date", 1.0)
            return present
    progress = _forward(progress)
    with staging.staging(out) as stage:
        _check_space(out, plan)
        shares, total = progress_shares.components(plan)
        done, components, made = 0.0, {}, _reference(plan, progress)
        for step in plan.steps:
            share, name, start = shares[step.spec.name], step.spec.name, done

            def report(label: str, part: float, name: str = name, start: float = start, share: float = share) -> None:
                progress(f"{name}: {label}", (start + part * share) / total)

            components[name] = _component(plan, step, stage, out, report, made)
            done += share
        _copy_pipeline(plan, stage.path / PIPELINE)
        manifest = _manifest(plan, components)
        at = min(done / total, 1.0)
        manifest = _check_image(plan, stage, manifest, lambda label: progress(f"image: {label}", at), made)
        bundle = stage.commit(manifest)
    progress("done", 1.0)
    return bundle


def _forward(progress: Progress) -> Progress:
    """A share that never falls, though an engine may have to be built more than once."""
    highest = 0.0

    def report(label: str, share: float) -> None:
        nonlocal highest
        highest = max(highest, share)
        progress(label, highest)

    return report


def _reference(plan: BuildPlan, progress: Progress) -> Reference | None:
    """Images of eager before anything is built, for the inputs at which half precision engines are compared."""
    half = any(s.action == "build" and s.spec.dtype == "float16" for s in plan.steps)
    if not (half and plan.config.verify_steps and plan.backend.is_numeric):
        return None
    sizes = plan.profiles[0].sizes("opt")
    steps, loras = plan.config.verify_steps, plan.loras
    return reference_images.make(plan.folder, sizes, steps, loras, lambda label: progress(f"image: {label}", 0.0))


def _component(
    plan: BuildPlan, step: ComponentPlan, stage: Staging, out: Path, report: Progress, made: Reference | None
) -> Component:
    if step.present is not None:
        report(step.reasons[0], 0.0)
        if step.action == "reuse":
            stage.adopt(step.present, out.resolve() / step.spec.name)
        return step.present
    with stage.component(step.spec.name) as folder:
        component = _build(plan, step, folder, report, made)
        files.write_text(folder / RECORD, component.model_dump_json(indent=1))
    build_times.add(plan.entry(component.name, step.weight_bytes, component.seconds))
    return component


def _build(plan: BuildPlan, step: ComponentPlan, folder: Path, report: Progress, made: Reference | None) -> Component:
    """Everything that happens to one component, in order; times of the stages go into its record."""
    spec, backend, seconds, bounds = step.spec, plan.backend, {}, progress_shares.stages(step)

    @contextmanager
    def stage(name: str, label: str) -> Iterator[None]:
        report(label, bounds[name][0])
        started = time.perf_counter()
        yield
        seconds[name] = round(time.perf_counter() - started, 3)

    def within(name: str) -> Progress:
        start, end = bounds[name]
        return lambda label, share: report(label, start + (end - start) * share)

    context = EngineContext(spec, plan.profiles, plan.options, single_profile=True)
    sizes = plan.profiles[0].sizes("opt")
    module: Any = None
    quantization: Quantization | None = None

    def price(graph_file: Path) -> costs.GraphCosts:
        return costs.graph_costs(graph_file, {t.name: t.resolve(sizes) for t in spec.inputs})

    def make(graph_file: Path | None) -> Engine:
        ranges = quantization.layers if quantization and quantization.scheme in backend.native_precisions else {}
        source = Source(spec, module, plan.profiles, graph_file, within("build"), ranges, plan.passes)
        backend.build(source, plan.options, folder)
        shutil.rmtree(folder / "work", ignore_errors=True)
        _free(module)
        return backend.load(folder, context)

    changes: tuple[Change, ...] = ()
    onnx, priced = None, None
    with stage("load", "loading weights"):
        process_memory.reset_peak()
        if backend.input_format != "nothing":
            module = _module(plan, spec)
    with stage("eager", "running eager"):
        asked = _ask(plan, spec, module, within("eager"), made)
    if module is not None and plan.config.quantized and spec.name in calibration_images.COMPONENTS:
        with stage("calibrate", "calibrating"):
            found = activation_ranges if plan.config.precision in backend.native_precisions else modelopt
            quantization = found.quantize(module, plan.config, plan.folder, sizes, plan.loras, within("calibrate"))
    if backend.input_format == "onnx":
        with stage("export", "exporting"):
            opset = plan.config.opset or backend.opset
            onnx = onnx_export.capture(spec, module, plan.profiles, opset, folder / "work")
        with stage("optimize", "optimizing the graph"):
            changes = optimize.optimize(onnx, plan.passes, plan.config.float32 if spec.dtype == "float16" else ())
            priced = price(onnx)
    needs = memory_estimate.of_graph(onnx, spec, plan.profiles, priced)
    with stage("build", "building the engine"):
        _save_norm(module, folder)
        if onnx is not None:
            _free(module)
        spare = GraphBackup(onnx, folder) if onnx is not None and spec.dtype == "float16" else None
        engine = make(onnx)
    with stage("verify", "comparing with eager"):
        limit = accuracy.LIMITS[plan.config.precision].error
        checked = fp32_fallback.checked(engine, asked, limit, spare, make, within("verify"))
        changes, engine = (*changes, *checked.changes, *checked.engine.passes()), checked.engine
        priced = price(checked.onnx) if checked.onnx else priced
        shutil.rmtree(folder / fp32_fallback.SPARE, ignore_errors=True)
    with stage("profile", "profiling"):
        inputs = {n: t.to(engine.device) for n, t in sample_inputs(spec, sizes).items()}
        profiled = engine.profile(inputs, sizes, plan.config.profile_runs, folder)
        (backend.join(profiled, priced) if priced else profiled).save(folder / "plan.json")
        contexts = engine.context_bytes()
        engine.close()
        malloc.give_back()
    taken = (m.model_copy(update={"context_bytes": size}) for m, size in zip(needs, contexts, strict=True))
    return Component(
        name=spec.name,
        key=step.key,
        files=staging.describe_files(folder),
        passes=changes,
        parity=checked.verdict.figures,
        notes=checked.verdict.notes,
        seconds=seconds,
        weight_bytes=step.weight_bytes,
        memory=Memory(profiles=tuple(taken), build_peak_bytes=process_memory.peak_bytes()),
        quantization=quantization,
    )


def _module(plan: BuildPlan, spec: ComponentSpec) -> nn.Module:
    """The checkpoint's module, with the LoRAs that are built in."""
    module = spec.load(plan.folder)
    lora.bake(module, spec, plan.loras, plan.folder)
    return module


def _ask(
    plan: BuildPlan, spec: ComponentSpec, module: Any, report: Progress, made: Reference | None
) -> ReferenceOutputs:
    """What eager answers in float32; the module is then as it was, since going there and back loses nothing."""
    import torch

    if not plan.backend.is_numeric:
        return ReferenceOutputs((), {})
    given = made.inputs.get(spec.name) if made else None
    asked = reference_outputs.ask(module.float(), spec, plan.profiles, given=given, report=report)
    module.to(getattr(torch, spec.dtype))
    return asked


def _free(module: nn.Module | None) -> None:
    """Give back the memory of a module's weights, whoever still holds it: the graph or the engine has them now."""
    if module is not None:
        module.to("meta")
        malloc.give_back()  # tracing leaves the weights in cycles


def _save_norm(module: Any, folder: Path) -> None:
    """Text encoders keep one small layer outside the engine: see `modules.EngineTextEncoder`."""
    if hasattr(module, "final_norm"):
        from safetensors.torch import save_file

        from sdtrt.pipelines.engine_modules import NORM

        save_file({k: v.contiguous() for k, v in module.final_norm().state_dict().items()}, folder / NORM)


def _copy_pipeline(plan: BuildPlan, target: Path) -> None:
    """Everything of the checkpoint but its weights: configs, tokenizers, scheduler."""
    shutil.rmtree(target, ignore_errors=True)
    # The configs of parts that were left out too: specs are derived from all of them.
    keep = [*models.load(plan.family).configs(plan.folder), "scheduler", "tokenizer", "tokenizer_2"]
    for part in keep:
        if (plan.folder / part).is_dir():
            (target / part).mkdir(parents=True)
            for file in (plan.folder / part).iterdir():
                if file.suffix in {".json", ".txt"} and "index.json" not in file.name:
                    shutil.copyfile(file, target / part / file.name)
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
        options=plan.options,
        config=plan.config.model_dump(mode="json"),
        environment=env.describe(),
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        components=dict(components),
    )


def _check_image(
    plan: BuildPlan, stage: Staging, manifest: Manifest, report: Callable[[str], None], made: Reference | None
) -> Manifest:
    """Make images with the staged engines and with eager; VerifyError when they differ too much or are none."""
    steps = plan.config.verify_steps
    if not (steps and plan.backend.is_numeric and {"unet", "vae_decoder"} <= manifest.components.keys()):
        return manifest
    started = time.perf_counter()
    check = verify.check_images(Bundle(stage.path, manifest), plan.folder, steps, plan.loras, report, made)
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
        check.run.save(stage.path / RUN)
    return manifest.model_copy(update={"image": check.figures()})


def _check_space(out: Path, plan: BuildPlan) -> None:
    """Engine and its ONNX file exist side by side for a moment: twice the weights must fit."""
    free = shutil.disk_usage(out.resolve().parent).free
    if free < 2 * plan.new_bytes:
        raise BuildError(
            "the disk is too full for this build",
            slug="disk-full",
            received=f"{free / 1e9:.1f} GB free",
            expected=f"{2 * plan.new_bytes / 1e9:.1f} GB",
            hint="free some space, or build elsewhere with --out",
        )
