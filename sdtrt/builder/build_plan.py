"""What a build would do: for every component its key, whether it is built or reused, why, and how large it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import Any, Literal

from sdtrt import engines, lora, models
from sdtrt.builder import build_times
from sdtrt.bundle import manifest, staging
from sdtrt.bundle.bundle import Bundle
from sdtrt.bundle.manifest import Component
from sdtrt.bundle.staging import Staging
from sdtrt.config import BuildConfig
from sdtrt.errors import BundleError, ConfigError
from sdtrt.graph import optimize
from sdtrt.models import checkpoint
from sdtrt.quantization import activation_ranges, calibration_images, modelopt
from sdtrt.shapes.spec import ComponentSpec, ShapeProfile
from sdtrt.system import env

# What the comparison of an image is called in the history.
IMAGE = "image"


@dataclass(frozen=True)
class ComponentPlan:
    """One component of the build: `action`, the reasons for it, its key, and the component to take over if any."""

    spec: ComponentSpec
    action: Literal["build", "reuse", "resume"]
    reasons: tuple[str, ...]
    key: dict[str, str]
    weight_bytes: int
    present: Component | None = None
    # Seconds by stage, from earlier builds on this machine; None when nothing is known.
    stages: Mapping[str, float] | None = None

    @property
    def expected_s(self) -> float | None:
        """Seconds that it will take; None when that is not known. What is taken over takes no time to speak of."""
        if self.action != "build":
            return 0.0
        return None if self.stages is None else sum(self.stages.values())


@dataclass(frozen=True)
class BuildPlan:
    """Everything that is settled before the first component is built."""

    config: BuildConfig
    folder: Path
    family: str
    backend: engines.Backend
    options: dict[str, Any]
    passes: tuple[str, ...]
    profiles: tuple[ShapeProfile, ...]
    steps: tuple[ComponentPlan, ...]
    loras: tuple[lora.BakedLora, ...] = ()
    controlnets: Mapping[str, Path] | None = None
    image_s: float | None = None

    @property
    def expected_s(self) -> float | None:
        """Seconds of the whole build; None when they are not known of every part of it."""
        parts = [*(step.expected_s for step in self.steps), self.image_s]
        known = [part for part in parts if part is not None]
        return sum(known) if len(known) == len(parts) else None

    def entry(self, component: str, weight_bytes: int, seconds: Mapping[str, float]) -> build_times.Entry:
        """How long a component took (`image`: the comparison at the end), as the history keeps it."""
        return build_times.Entry(
            machine=build_times.machine(self.backend.device(self.options)),
            backend=self.backend.name,
            component=component,
            precision=self.config.precision,
            profiles="; ".join(map(str, self.profiles)),
            weight_bytes=weight_bytes,
            seconds=dict(seconds),
        )

    @property
    def new_bytes(self) -> int:
        """Weight bytes of the engines that must be built: about what they take on disk."""
        return sum(s.weight_bytes for s in self.steps if s.action == "build")


def forecast(config: BuildConfig, out: Path, force: bool = False, *, look: engines.Backend | None = None) -> BuildPlan:
    """Resolve the model, the profiles and the backend, and compare keys with what is there. Builds nothing.

    `look` is a backend that need not be able to build: the forecast is then for looking at only.
    """
    backend = look or engines.require(config.backend)
    options = backend.check_options(config.options)
    if config.quantized and look is None:
        if config.precision in backend.native_precisions:
            activation_ranges.check(config, backend.gpu(options))
        else:
            modelopt.check(config, backend.input_format, config.opset or backend.opset, backend.gpu(options))
    folder, family, specs, profiles = resolve(config)
    wanted = _wanted(config, specs)
    loras = lora.baked(config.lora, specs, folder)
    passes = config.passes if config.passes is not None else backend.passes_for(options)
    shared = {
        "precision": config.precision,
        "opset": str(config.opset or backend.opset),
        "passes": optimize.versions(passes, backend.passes_package, backend.renamed_passes)
        if backend.input_format == "onnx" or backend.passes
        else "none",
        "backend": f"{backend.name} {backend.version()}",
        "options": ", ".join(f"{k}={v}" for k, v in sorted(options.items()) if k not in backend.run_options),
        "device": backend.device(options),
        "exporter": f"sdtrt {env.version('sdtrt')}, torch {env.version('torch')}, diffusers {env.version('diffusers')}",
        "format": str(manifest.FORMAT_VERSION),
    }
    digest = lru_cache(maxsize=None)(lambda part: checkpoint.weights_digest(part.parent, part.name))
    bundle, finished = staging.present(out), Staging(out.resolve()).finished()
    steps = []
    for name, spec in specs.items():
        if name not in wanted and (bundle is None or name not in bundle.manifest.components):
            continue
        key = {"weights": digest(spec.weights(folder)), "profiles": backend.sizes_key(spec, profiles), **shared}
        if spec.variant:
            key["variant"] = spec.variant
        if config.quantized and name not in calibration_images.COMPONENTS:
            key["precision"] = "fp16"
        elif config.quantized:
            key["quantization"] = (
                activation_ranges if config.precision in backend.native_precisions else modelopt
            ).key(config, loras)
        if config.float32 and spec.dtype == "float16":
            key["float32"] = ", ".join(config.float32)
        if mine := [str(entry) for entry in loras if spec.attribute in entry.parts]:
            key["lora"] = ", ".join(mine)
        built = _whole(bundle, name) if bundle else None
        weight_bytes = checkpoint.parameter_count(spec.weights(folder)) * (2 if spec.dtype == "float16" else 4)
        steps.append(_step(spec, key, built, finished.get(name), force, weight_bytes))
    made = checkpoint.controlnets(config.controlnet)
    return _timed(BuildPlan(config, folder, family.name, backend, options, passes, profiles, tuple(steps), loras, made))


def _timed(plan: BuildPlan) -> BuildPlan:
    """With the times of earlier builds."""
    known = build_times.load()
    steps = tuple(replace(s, stages=known.expect(plan.entry(s.spec.name, s.weight_bytes, {}))) for s in plan.steps)
    image = known.expect(plan.entry(IMAGE, sum(s.weight_bytes for s in steps), {}))
    if not (plan.config.verify_steps and plan.backend.is_numeric):
        image = {}
    return replace(plan, steps=steps, image_s=None if image is None else sum(image.values()))


def resolve(
    config: BuildConfig,
) -> tuple[Path, models.ModelFamily, dict[str, ComponentSpec], tuple[ShapeProfile, ...]]:
    """The model's folder, its family, all its components and the profiles; no backend is needed."""
    folder = checkpoint.resolve(config.model, config.revision, config.variant)
    family = models.family_of(folder)
    specs = family.components(folder, config.precision, checkpoint.controlnets(config.controlnet))
    profiles = _profiles(config, family.default_profile(folder))
    _check(specs, profiles)
    return folder, family, specs, profiles


def _step(
    spec: ComponentSpec, key: dict[str, str], built: Component | None, half: Component | None, force: bool, size: int
) -> ComponentPlan:
    if force:
        return ComponentPlan(spec, "build", ("--force was given",), key, size)
    if built is not None and built.key == key:
        return ComponentPlan(spec, "reuse", ("nothing changed",), key, size, built)
    if half is not None and half.key == key:
        return ComponentPlan(spec, "resume", ("finished by an interrupted build",), key, size, half)
    if built is None:
        return ComponentPlan(spec, "build", ("it is new",), key, size)
    return ComponentPlan(spec, "build", manifest.differences(built.key, key), key, size)


def _whole(bundle: Bundle, name: str) -> Component | None:
    """A component of the bundle, unless it has none or its files are damaged: then it is new."""
    try:
        if name in bundle.manifest.components:
            bundle.check_sizes(name)
    except BundleError:
        return None
    return bundle.manifest.components.get(name)


def _profiles(config: BuildConfig, default: ShapeProfile) -> tuple[ShapeProfile, ...]:
    given = [ShapeProfile.parse(p) for p in config.profiles] or [default]
    return tuple(p.with_defaults(default) for p in given)


def _check(specs: dict[str, ComponentSpec], profiles: tuple[ShapeProfile, ...]) -> None:
    """Every size of every profile must resolve: ShapeError for one that the model cannot divide."""
    for profile, point, spec in product(profiles, ("min", "opt", "max"), specs.values()):
        for tensor in spec.inputs:
            tensor.resolve(profile.sizes(point))


def _wanted(config: BuildConfig, specs: dict[str, ComponentSpec]) -> set[str]:
    if config.components is None:
        return set(specs)
    if unknown := set(config.components) - set(specs):
        raise ConfigError(
            "the model has no such component",
            slug="config-component",
            received=", ".join(sorted(unknown)),
            expected=", ".join(specs),
        )
    return set(config.components)
