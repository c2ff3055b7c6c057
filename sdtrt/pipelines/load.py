"""load() and accelerate(): the stock diffusers pipeline, with engines in the place of its modules."""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sdtrt import models
from sdtrt.bundle import hub
from sdtrt.bundle.bundle import Bundle
from sdtrt.errors import BundleError, Unsupported
from sdtrt.pipelines import adapter, tasks
from sdtrt.pipelines.engine_loading import LoadOptions, load_modules
from sdtrt.pipelines.nonfinite import OnNonFinite
from sdtrt.pipelines.tasks import Task
from sdtrt.pipelines.unbuilt_sizes import OnUnsupportedSize

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


def load(
    bundle: str | os.PathLike[str] | Bundle,
    task: Task | None = None,
    *,
    options: Mapping[str, Any] | None = None,
    on_nonfinite: OnNonFinite = "raise",
    on_unsupported_size: OnUnsupportedSize = "error",
    model: str | None = None,
    low_memory: bool = False,
    trust: bool = False,
    **components: Any,
) -> DiffusionPipeline:
    """Open a bundle as the stock diffusers pipeline of `task`; every scheduler, callback and output type works.

    Several threads may call the pipeline at once, see `thread_safety`.

    Args:
        bundle: a folder, or "owner/name" of a bundle on the Hugging Face hub.
        task: "txt2img", "img2img", "inpaint" or "controlnet"; by default what the checkpoint was trained for.
        options: replace the backend's options of the same names.
        on_nonfinite: what NaN or Inf from an engine does: "raise" NonFiniteError with the step, "warn" with a
            NonFiniteWarning, or "ignore".
        on_unsupported_size: what a size that was not built does: "error", or "eager", which runs the checkpoint's own
            modules, with a FallbackWarning.
        model: where the checkpoint lies now, by default where the bundle was built from; for "eager" alone.
        low_memory: keep one engine in memory at a time.
        trust: load native code of a bundle that was not built here.
        components: replace or add pipeline components, such as `scheduler=`, `controlnet=` or `safety_checker=`.

    Raises:
        ConfigError, BundleError, EngineError, BackendUnavailable: see `sdtrt.errors`.
    """
    import diffusers
    import transformers

    bundle = hub.open_or_pull(bundle)
    task_name = tasks.choose(bundle, task, "controlnet" in components)
    cls = getattr(diffusers, models.load(bundle.manifest.family).pipelines[task_name])
    index = models.read_json(bundle.pipeline_folder / "model_index.json")
    with_controlnets = task_name == "controlnet" and "controlnet" not in components
    load_options = LoadOptions(options, on_nonfinite, on_unsupported_size, model, low_memory, trust)
    arguments: dict[str, Any] = {**load_modules(bundle, load_options, with_controlnets), **components}
    for name, parameter in inspect.signature(cls.__init__).parameters.items():
        entry = index.get(name)
        if name in arguments or name == "self":
            continue
        if name.startswith(("scheduler", "tokenizer")) and entry and entry[1]:
            library = diffusers if name == "scheduler" else transformers
            arguments[name] = getattr(library, entry[1]).from_pretrained(bundle.pipeline_folder / name)
        elif name == "requires_safety_checker":
            arguments[name] = False
        elif entry is not None and not isinstance(entry, list):
            arguments[name] = entry
        elif parameter.default is inspect.Parameter.empty:
            arguments[name] = None
    return adapter.adapt(cls(**arguments), bundle)


def accelerate(
    pipe: DiffusionPipeline,
    bundle: str | os.PathLike[str] | Bundle,
    *,
    options: Mapping[str, Any] | None = None,
    on_nonfinite: OnNonFinite = "raise",
    on_unsupported_size: OnUnsupportedSize = "error",
    model: str | None = None,
    trust: bool = False,
) -> DiffusionPipeline:
    """Put the bundle's engines into a pipeline that exists, in place, and return it.

    Args:
        pipe: a stock pipeline of the checkpoint that the bundle was built from, without LoRAs; its scheduler,
            tokenizers, ControlNet and safety checker stay.
        bundle: a folder with a bundle.
        options: as for `load`.
        on_nonfinite: as for `load`.
        on_unsupported_size: as for `load`.
        model: as for `load`.
        trust: as for `load`.

    Raises:
        BundleError: a module's config differs from the one that the bundle was built from.
        Unsupported: an adapter is loaded into a module that an engine replaces.
    """
    bundle = Bundle.open(bundle)
    if getattr(pipe, "controlnet", None) is not None:
        tasks.check_controlnet(bundle, True)  # the ControlNet stays: no config says what it was trained to follow
    modules = load_modules(bundle, LoadOptions(options, on_nonfinite, on_unsupported_size, model, trust=trust))
    for name, module in modules.items():
        _check_replaceable(pipe, name, module)
    pipe.register_modules(**modules)
    return adapter.adapt(pipe, bundle)


def _check_replaceable(pipe: DiffusionPipeline, name: str, module: Any) -> None:
    """BundleError, or Unsupported, unless `module` can replace the module `name` of `pipe`."""
    replaced = getattr(pipe, name, None)
    if replaced is None:
        raise BundleError(f"the pipeline has no {name}", received=type(pipe).__name__, expected=name)
    if getattr(replaced, "_hf_peft_config_loaded", False):
        raise Unsupported(f"an adapter is loaded into {name} and would be lost: {adapter.FIXED_WEIGHTS}")
    built, present = comparable_config(module.config), comparable_config(replaced.config)
    if differ := sorted(k for k in built.keys() & present.keys() if built[k] != present[k]):
        raise BundleError(
            f"{name} of the pipeline is not the one that the bundle was built from",
            slug="bundle-other-model",
            received=", ".join(f"{k}={present[k]}" for k in differ),
            expected=", ".join(f"{k}={built[k]}" for k in differ),
            hint="build a bundle from the pipeline's own checkpoint",
        )


def comparable_config(config: Any) -> dict[str, Any]:
    """The values of a module's config, without those that say where and by which version it was saved."""
    data = config.to_dict() if hasattr(config, "to_dict") else dict(config)
    skip = ("_", "transformers_version", "dtype", "torch_dtype", "architectures")
    plain = {k: list(v) if isinstance(v, tuple) else v for k, v in data.items()}
    return {k: v for k, v in plain.items() if not k.startswith(skip)}
