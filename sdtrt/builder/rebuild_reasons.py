"""`sdtrt why`: the differences between a bundle and what a build by the same recipe would make here and now.

It works without the checkpoint, the LoRA files, the ControlNets or the library of the backend: the fields of the key
that depend on them are unknown then. Nothing is built or downloaded.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sdtrt import config as configs
from sdtrt import engines
from sdtrt.builder.key_comparison import Reasons, compare
from sdtrt.builder.planning import component_keys, resolve_recipe
from sdtrt.bundle.bundle import Bundle
from sdtrt.config import BuildConfig
from sdtrt.errors import ModelError
from sdtrt.models import checkpoint


def why(
    bundle: str | os.PathLike[str] | Bundle, config: str | os.PathLike[str] | BuildConfig | None = None, **settings: Any
) -> tuple[Reasons, ...]:
    """Compare every component of `bundle` with what a build on this machine would make.

    `config` and `settings` are those of `build`; what is left out is taken from the bundle's own recipe, or all of it
    from `config` where that is given. Raises BundleError, and ConfigError for a recipe that is wrong.
    """
    bundle = Bundle.open(bundle)
    recipe = config if isinstance(config, BuildConfig) else _recipe(bundle, config, settings)
    recipe, unknown = _with_local_model(recipe, bundle)
    recipe, controlnets = _with_local_controlnets(recipe, bundle)
    backend = engines.load(recipe.backend)
    if (missing := backend.unavailable()) is None:
        options = backend.check_options(recipe.options)
    else:
        options = engines.Backend.check_options(backend, recipe.options)
        unknown |= dict.fromkeys(("backend", "device"), f"{backend.name} cannot run here: {missing.reason}")
    plan = resolve_recipe(recipe, backend, options)
    keys = component_keys(plan, bundle.manifest.components)
    # The weights of a ControlNet are its own, not those of the checkpoint.
    shared = {field: cause for field, cause in unknown.items() if field != "weights"}
    causes = {name: {**shared, **missing_weights} for name, missing_weights in controlnets.items()}
    every = dict.fromkeys([*bundle.manifest.components, *keys])
    return tuple(compare(bundle, name, keys.get(name), causes.get(name, unknown)) for name in every)


def _recipe(bundle: Bundle, path: str | os.PathLike[str] | None, settings: Mapping[str, Any]) -> BuildConfig:
    manifest = bundle.manifest
    recorded = {"model": manifest.model, "backend": manifest.backend, "precision": manifest.precision}
    recorded = {} if path else {**recorded, **manifest.config}
    changed = {name: value for name, value in settings.items() if value is not None}
    return configs.load(Path(path) if path else None, **{**recorded, **changed})


def _with_local_model(recipe: BuildConfig, bundle: Bundle) -> tuple[BuildConfig, dict[str, str]]:
    """The recipe with a local folder as its model, and unknown fields; the bundle's configs replace a checkpoint."""
    unknown: dict[str, str] = {}
    folder = checkpoint.find_local(recipe.model, recipe.revision, recipe.variant)
    if folder is None:
        unknown["weights"] = f"the checkpoint is not here: {recipe.model}"
    if recipe.lora and not all(Path(entry.path).expanduser().is_file() for entry in recipe.lora):
        unknown["lora"] = "a LoRA file is not here"
        recipe = recipe.model_copy(update={"lora": ()})
    return recipe.model_copy(update={"model": str(folder or bundle.pipeline_folder)}), unknown


def _with_local_controlnets(recipe: BuildConfig, bundle: Bundle) -> tuple[BuildConfig, dict[str, dict[str, str]]]:
    """The recipe with local folders as its ControlNets, and the unknown fields of each by component.

    The bundle's config replaces a ControlNet that is not here; ModelError when the bundle has none for it.
    """
    if recipe.controlnet is None:
        return recipe, {}
    in_bundle, unknown, folders = bundle.controlnets or {}, {}, []
    for name, model in checkpoint.controlnet_names(recipe.controlnet).items():
        folder = checkpoint.find_local_controlnet(model)
        unknown[name] = {} if folder else {"weights": f"the ControlNet is not here: {model}"}
        if folder is None and name not in in_bundle:
            raise ModelError(
                "the ControlNet is not here, and the bundle has none in its place",
                slug="controlnet-missing",
                received=model,
                expected="a folder, or a hub id that was downloaded before",
            )
        folders.append(str(folder or in_bundle[name]))
    return recipe.model_copy(update={"controlnet": tuple(folders)}), unknown
