"""The key of a component: everything that its engine depends on, field by field."""

from __future__ import annotations

from collections.abc import Collection
from functools import lru_cache

from sdtrt.builder.build_plan import BuildPlan
from sdtrt.bundle import manifest
from sdtrt.errors import ConfigError
from sdtrt.graph import optimize
from sdtrt.models import checkpoint
from sdtrt.quantization import method
from sdtrt.system import env


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
        "format": str(manifest.FORMAT_VERSION),
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
