"""The engines of a bundle: loaded by component name, and as the modules that a diffusers pipeline calls."""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from sdtrt import engines, models
from sdtrt.bundle import provenance
from sdtrt.bundle.bundle import Bundle
from sdtrt.errors import BundleError
from sdtrt.pipelines import unbuilt_sizes
from sdtrt.pipelines.nonfinite import NonFiniteDetector, OnNonFinite
from sdtrt.pipelines.unbuilt_sizes import OnUnsupportedSize

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline
    from torch import nn


@dataclass(frozen=True)
class LoadOptions:
    """How engines are loaded; the fields are arguments of `load`."""

    options: Mapping[str, Any] | None = None
    on_nonfinite: OnNonFinite = "raise"
    on_unsupported_size: OnUnsupportedSize = "error"
    model: str | None = None
    low_memory: bool = False
    trust: bool = False


DEFAULTS = LoadOptions()


def load_modules(
    bundle: Bundle, load_options: LoadOptions = DEFAULTS, with_controlnets: bool = False
) -> dict[str, nn.Module]:
    """The engines of a bundle as modules, by the pipeline attribute that each replaces."""
    from sdtrt.pipelines import engine_controlnet
    from sdtrt.pipelines.engine_modules import NORM, EngineTextEncoder, EngineUNet, EngineVae

    detector = NonFiniteDetector(load_options.on_nonfinite)
    nets = bundle.controlnets or {}
    loaded = load_engines(bundle, load_options, exclude=() if with_controlnets else nets)
    modules: dict[str, nn.Module] = {}
    if controlnets := {n: loaded.pop(n) for n in nets if n in loaded}:
        modules["controlnet"] = engine_controlnet.load(controlnets, nets, detector)
    for attribute in dict.fromkeys(e.spec.attribute for e in loaded.values()):
        group = {n: e for n, e in loaded.items() if e.spec.attribute == attribute}
        folder = bundle.pipeline_folder / attribute
        if attribute == "unet":
            modules[attribute] = EngineUNet(group, folder, detector)
        elif attribute == "vae":
            modules[attribute] = EngineVae(group, folder, detector)
        else:
            modules[attribute] = EngineTextEncoder(group, folder, bundle.path / attribute / NORM, detector)
    return modules


def load_engines(
    bundle: Bundle, load_options: LoadOptions = DEFAULTS, exclude: Container[str] = ()
) -> dict[str, engines.Engine]:
    """The engines of a bundle by component name, without those in `exclude`.

    Raises BundleError for native code that was pulled from a hub, unless `load_options.trust` is set.
    """
    unbuilt_sizes.check(load_options.on_unsupported_size)
    manifest = bundle.manifest
    backend = engines.require(manifest.backend)
    _check_trust(bundle, backend, load_options.trust)
    specs = models.load(manifest.family).components(bundle.pipeline_folder, manifest.precision, bundle.controlnets)
    backend_options = backend.check_options({**manifest.options, **(load_options.options or {})})
    eager = load_options.on_unsupported_size == "eager"
    arguments = {}
    for name in (n for n in manifest.components if n not in exclude):
        bundle.check_sizes(name)
        bundle.check_code(name, backend.code_files)
        context = engines.EngineContext(
            spec=specs[name],
            profiles=manifest.shape_profiles,
            options=backend_options,
            rebuild=f"sdtrt build {manifest.model} --out {bundle.path}",
            describe_add_profile=partial(unbuilt_sizes.describe_add_profile, bundle, specs, backend),
            eager=unbuilt_sizes.eager(bundle, specs[name], load_options.model) if eager else None,
        )
        arguments[name] = bundle.folder(name), context
    if load_options.low_memory:
        return engines.load_lazily(backend, arguments)
    # Loading takes more memory than running, so the largest engine is loaded first.
    largest_first = sorted(arguments, key=lambda name: -(manifest.components[name].weight_bytes or 0))
    loaded = {name: backend.load(*arguments[name]) for name in largest_first}
    return {name: loaded[name] for name in arguments}


def _check_trust(bundle: Bundle, backend: engines.Backend, trust: bool) -> None:
    """BundleError for native code from a hub that the user does not trust."""
    origin = provenance.read_origin(bundle) if backend.native_code and not trust else None
    if origin is not None:
        raise BundleError(
            f"engines of {backend.name} are native code, and these were not built here",
            slug="bundle-untrusted",
            received=f"{origin.repo} at {origin.commit[:12]}",
            expected="a bundle that was built here, or one whose author you trust",
            hint="if you do: --trust, or trust=True in Python",
        )


def engines_of(pipe: DiffusionPipeline) -> dict[str, engines.Engine]:
    """All engines in `pipe` by component name."""
    from sdtrt.pipelines.engine_modules import EngineModule

    modules = (net for component in pipe.components.values() for net in getattr(component, "nets", [component]))
    return {n: e for m in modules if isinstance(m, EngineModule) for n, e in m.engines.items()}
