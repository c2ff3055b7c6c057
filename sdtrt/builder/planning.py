"""plan_build(): the plan of a build, from the recipe, the checkpoint and the bundle that is present. Builds nothing.

The key of a component names everything that its engine depends on, field by field.
"""

from collections.abc import Collection
from dataclasses import replace
from functools import lru_cache
from itertools import product
from pathlib import Path

from sdtrt import engines, lora, models
from sdtrt.builder import build_times, key_comparison
from sdtrt.builder.build_plan import IMAGE, BuildPlan, ComponentPlan
from sdtrt.bundle import staging
from sdtrt.bundle.bundle import Bundle
from sdtrt.bundle.manifest import FORMAT_VERSION, Component
from sdtrt.bundle.staging import Staging
from sdtrt.config import BuildConfig
from sdtrt.errors import ConfigError
from sdtrt.graph import optimize
from sdtrt.models import checkpoint
from sdtrt.quantization import method
from sdtrt.shapes.spec import ComponentSpec, ShapeProfile
from sdtrt.system import env


def plan_build(config: BuildConfig, out: Path, force: bool = False) -> BuildPlan:
    """Resolve the model, the profiles and the backend, and compare keys with the bundle at `out`. Builds nothing.

    `force` plans to build every component. Raises what `build` raises before the first component.
    """
    backend = engines.require(config.backend)
    options = backend.check_options(config.options)
    if quantization := method.method_of(config, backend):
        quantization.check(config, backend, backend.gpu(options))
    plan = resolve_recipe(config, backend, options)
    bundle, finished = staging.open_existing(out), Staging(out.resolve()).finished()
    steps = []
    for name, key in component_keys(plan, bundle.manifest.components if bundle else ()).items():
        spec = plan.specs[name]
        weight_bytes = checkpoint.parameter_count(spec.weights(plan.folder)) * (2 if spec.dtype == "float16" else 4)
        step = ComponentPlan(spec, "build", ("--force was given",), key, weight_bytes)
        steps.append(step if force else _compared(step, bundle, finished.get(name)))
    return _with_expected_times(replace(plan, steps=tuple(steps)))


def resolve_recipe(config: BuildConfig, backend: engines.Backend, options: engines.Options) -> BuildPlan:
    """The plan of a recipe without its steps; `backend` need not be able to run here."""
    folder, family, specs, profiles = resolve(config)
    loras = lora.baked(config.lora, specs, folder)
    passes = config.passes if config.passes is not None else backend.passes_for(options)
    controlnets = checkpoint.controlnets(config.controlnet)
    return BuildPlan(config, folder, family.name, backend, options, passes, profiles, specs, loras, controlnets)


def resolve(config: BuildConfig) -> tuple[Path, models.ModelFamily, dict[str, ComponentSpec], tuple[ShapeProfile, ...]]:
    """The model's folder, its family, all its components and the profiles; no backend is needed.

    Raises ShapeError when the model cannot divide a size of a profile.
    """
    folder = checkpoint.resolve(config.model, config.revision, config.variant)
    family = models.family_of(folder)
    specs = family.components(folder, config.precision, checkpoint.controlnets(config.controlnet))
    default = family.default_profile(folder)
    profiles = tuple(ShapeProfile.parse(p).with_defaults(default) for p in config.profiles) or (default,)
    for profile, point, spec in product(profiles, ("min", "opt", "max"), specs.values()):
        for tensor in spec.inputs:
            tensor.resolve(profile.sizes(point))
    return folder, family, specs, profiles


def component_keys(plan: BuildPlan, present: Collection[str]) -> dict[str, dict[str, str]]:
    """The keys of the components that the recipe names, by default all, and of those that are `present` in the bundle.

    Version and device of a backend that cannot run here are empty.
    """
    config, backend, options = plan.config, plan.backend, plan.options
    build_options = options.model_dump(mode="json", exclude={*backend.run_options})
    usable = backend.unavailable() is None
    shared = {
        "precision": config.precision,
        "opset": str(config.opset or backend.opset),
        "passes": optimize.versions(plan.passes, backend.passes_package, backend.renamed_passes)
        if backend.input_format == "onnx" or backend.passes
        else "none",
        "backend": f"{backend.name} {backend.version()}" if usable else "",
        "options": ", ".join(f"{k}={v}" for k, v in sorted(build_options.items())),
        "device": backend.device(options) if usable else "",
        "exporter": f"sdtrt {env.version('sdtrt')}, torch {env.version('torch')}, diffusers {env.version('diffusers')}",
        "format": str(FORMAT_VERSION),
    }
    quantization = method.method_of(config, backend)
    digest = lru_cache(maxsize=None)(lambda part: checkpoint.weights_digest(part.parent, part.name))
    keys = {}
    for name in _chosen(plan, present):
        spec = plan.specs[name]
        key = {"weights": digest(spec.weights(plan.folder)), "profiles": backend.sizes_key(spec, plan.profiles)}
        key |= shared
        if spec.variant:
            key["variant"] = spec.variant
        if quantization and name in method.COMPONENTS:
            key["quantization"] = quantization.key(config, plan.loras)
        elif quantization:
            key["precision"] = "fp16"
        if config.float32 and spec.dtype == "float16":
            key["float32"] = ", ".join(config.float32)
        if loras := [str(entry) for entry in plan.loras if spec.attribute in entry.parts]:
            key["lora"] = ", ".join(loras)
        keys[name] = key
    return keys


def _chosen(plan: BuildPlan, present: Collection[str]) -> list[str]:
    if plan.config.components is None:
        return list(plan.specs)
    if unknown := set(plan.config.components) - set(plan.specs):
        raise ConfigError(
            "the model has no such component",
            slug="config-component",
            received=", ".join(sorted(unknown)),
            expected=", ".join(plan.specs),
        )
    return [name for name in plan.specs if name in plan.config.components or name in present]


def _compared(step: ComponentPlan, bundle: Bundle | None, finished: Component | None) -> ComponentPlan:
    """Reuse the component of the bundle or the one that an interrupted build `finished`, or build it for a reason."""
    reasons = key_comparison.compare(bundle, step.spec.name, step.key)
    if bundle is not None and not reasons.rebuild:
        present = bundle.manifest.components[step.spec.name]
        return replace(step, action="reuse", reasons=("nothing changed",), present=present)
    if finished is not None and finished.key == step.key:
        return replace(step, action="resume", reasons=("finished by an interrupted build",), present=finished)
    return replace(step, reasons=reasons.texts())


def _with_expected_times(plan: BuildPlan) -> BuildPlan:
    """The plan with the times of earlier builds on this machine."""
    times = build_times.load()
    steps = tuple(replace(s, stages=times.expect(plan.entry(s.spec.name, s.weight_bytes, {}))) for s in plan.steps)
    image = times.expect(plan.entry(IMAGE, sum(s.weight_bytes for s in steps), {}))
    image = image if plan.compares_images else {}
    return replace(plan, steps=steps, image_s=None if image is None else sum(image.values()))
