"""why(): what differs between a bundle and what a build here, now, would make by the same recipe. Builds nothing.

It works without the checkpoint, the LoRA files, the ControlNets or the backend's library: what depends on them is then
unknown, and said to be.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sdtrt import config as configs
from sdtrt import engines
from sdtrt.builder.build_plan import ComponentPlan, forecast
from sdtrt.bundle.bundle import Bundle
from sdtrt.config import BuildConfig
from sdtrt.errors import ModelError, SdtrtError
from sdtrt.models import checkpoint

NONE = "(none)"


@dataclass(frozen=True)
class Difference:
    """One field of a component's key that differs: as it was built, and as it would be built now."""

    field: str
    built: str
    now: str


@dataclass(frozen=True)
class Reasons:
    """What makes a component be built anew. `unknown` are fields that could not be compared, with the cause."""

    component: str
    differs: tuple[Difference, ...] = ()
    unknown: Mapping[str, str] = field(default_factory=dict)
    damage: str | None = None

    @property
    def rebuild(self) -> bool | None:
        """Whether a build is needed; None when nothing is known to differ, but not everything is known."""
        if self.differs or self.damage:
            return True
        return None if self.unknown else False


def why(
    bundle: str | os.PathLike[str] | Bundle, config: str | os.PathLike[str] | BuildConfig | None = None, **settings: Any
) -> tuple[Reasons, ...]:
    """Compare every component of `bundle` with what a build on this machine would make.

    `config` and `settings` are those of `build`; what is left out is taken from the bundle's own recipe, or all of it
    from `config` where that is given. Raises BundleError, and ConfigError for a recipe that is wrong.
    """
    bundle = Bundle.open(bundle)
    recipe = config if isinstance(config, BuildConfig) else _recipe(bundle, config, settings)
    recipe, unknown = _with_what_is_here(recipe, bundle)
    recipe, nets = _with_controlnets_here(recipe, bundle)
    backend = engines.load(recipe.backend)
    if (missing := backend.unavailable()) is not None:
        backend = _absent(backend)
        unknown |= dict.fromkeys(("backend", "device"), f"{backend.name} cannot run here: {missing.reason}")
    steps = {s.spec.name: s for s in forecast(recipe, bundle.path, look=backend).steps}
    names = dict.fromkeys([*bundle.manifest.components, *steps])
    shared = {f: cause for f, cause in unknown.items() if f != "weights"}
    causes = dict.fromkeys(names, unknown) | {name: {**shared, **own} for name, own in nets.items()}
    return tuple(_reasons(bundle, name, steps.get(name), causes[name]) for name in names)


def _recipe(bundle: Bundle, path: str | os.PathLike[str] | None, settings: Mapping[str, Any]) -> BuildConfig:
    manifest = bundle.manifest
    known = {"model": manifest.model, "backend": manifest.backend, "precision": manifest.precision}
    known = {} if path else {**known, **manifest.config}
    given = {name: value for name, value in settings.items() if value is not None}
    return configs.load(Path(path) if path else None, **{**known, **given})


def _with_what_is_here(recipe: BuildConfig, bundle: Bundle) -> tuple[BuildConfig, dict[str, str]]:
    """The recipe with a local folder for its model; the bundle's own configs stand in for a checkpoint."""
    unknown: dict[str, str] = {}
    folder = checkpoint.at_hand(recipe.model, recipe.revision, recipe.variant)
    if folder is None:
        unknown["weights"] = f"the checkpoint is not here: {recipe.model}"
    if recipe.lora and not all(Path(entry.path).expanduser().is_file() for entry in recipe.lora):
        unknown["lora"] = "a LoRA file is not here"
        recipe = recipe.model_copy(update={"lora": ()})
    return recipe.model_copy(update={"model": str(folder or bundle.pipeline_folder)}), unknown


def _with_controlnets_here(recipe: BuildConfig, bundle: Bundle) -> tuple[BuildConfig, dict[str, dict[str, str]]]:
    """The recipe with local folders for its ControlNets, and what is not known of each, by component.

    The bundle's own config stands in for one that is not here; ModelError when the bundle has none in its place.
    """
    if recipe.controlnet is None:
        return recipe, {}
    stand_ins, unknown, folders = bundle.controlnets or {}, {}, []
    for name, model in checkpoint.controlnet_names(recipe.controlnet).items():
        folder = checkpoint.controlnet_at_hand(model)
        unknown[name] = {} if folder else {"weights": f"the ControlNet is not here: {model}"}
        if folder is None and name not in stand_ins:
            raise ModelError(
                "the ControlNet is not here, and the bundle has none in its place",
                slug="controlnet-missing",
                received=model,
                expected="a folder, or a hub id that was downloaded before",
            )
        folders.append(str(folder or stand_ins[name]))
    return recipe.model_copy(update={"controlnet": tuple(folders)}), unknown


def _absent(backend: engines.Backend) -> engines.Backend:
    """A backend whose library is not here: what it asks of its key is the same, its version and device are unknown."""
    known = engines.Backend
    changes = {"version": lambda self: "", "device": known.device, "check_options": known.check_options}
    made: engines.Backend = type("Absent", (type(backend),), changes)()
    return made


def _reasons(bundle: Bundle, name: str, step: ComponentPlan | None, unknown: Mapping[str, str]) -> Reasons:
    built = bundle.manifest.components.get(name)
    if built is None:
        return Reasons(name, (Difference("component", NONE, "new"),))
    if step is None:
        return Reasons(name, (Difference("component", "built", NONE),))
    fields = [f for f in dict.fromkeys([*built.key, *step.key]) if built.key.get(f) != step.key.get(f)]
    differs = (Difference(f, built.key.get(f, NONE), step.key.get(f, NONE)) for f in fields if f not in unknown)
    mine = {f: cause for f, cause in unknown.items() if f in built.key or f in step.key}
    return Reasons(name, tuple(differs), mine, _damage(bundle, name))


def _damage(bundle: Bundle, name: str) -> str | None:
    try:
        bundle.check_sizes(name)
    except SdtrtError as exc:
        return f"{exc.message}: {exc.received}, expected {exc.expected}"
    return None
