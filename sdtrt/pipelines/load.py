"""load() and accelerate(): the stock diffusers pipeline, with engines in the place of its modules."""

from __future__ import annotations

import inspect
import os
import time
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import ref

from sdtrt import engines, lora, models
from sdtrt.bundle import hub, provenance
from sdtrt.bundle.bundle import Bundle
from sdtrt.errors import BundleError, Unsupported
from sdtrt.pipelines import tasks, thread_safety
from sdtrt.pipelines import unbuilt_sizes as beyond
from sdtrt.pipelines.nonfinite import NonFiniteDetector, OnNonFinite
from sdtrt.pipelines.tasks import Task
from sdtrt.pipelines.unbuilt_sizes import OnUnsupportedSize
from sdtrt.plan.image_timing import EngineCalls, ImageRun

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline
    from torch import nn

T = TypeVar("T")


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

_LORA_PARTS = ("text_encoder", "text_encoder_2", "unet")
_LORA = (
    "weights are fixed in these engines; build with the adapter, sdtrt build MODEL --lora FILE, or build engines that "
    "take other weights: onnxruntime's do, and TensorRT's with options: {refit: all}"
)
# Methods that with engines would do nothing, or half; more are refused by the modules themselves.
_REFUSED = {
    "load_ip_adapter": "the exported U-Net has no image conditioning",
    "load_textual_inversion": "token embeddings are inside the text encoder's engine",
    "enable_xformers_memory_efficient_attention": "attention is compiled; it is not needed",
    "enable_model_cpu_offload": "engines stay on their device",
    "enable_sequential_cpu_offload": "engines stay on their device",
    "save_pretrained": "the bundle is the saved form; copy its folder",
}


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
    **parts: Any,
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
        parts: replace or add pipeline parts, such as `scheduler=`, `controlnet=` or `safety_checker=`.

    Raises:
        ConfigError, BundleError, EngineError, BackendUnavailable: see `sdtrt.errors`.
    """
    import diffusers
    import transformers

    bundle = hub.opened(bundle)
    chosen = tasks.choose(bundle, task, "controlnet" in parts)
    cls = getattr(diffusers, models.load(bundle.manifest.family).pipelines[chosen])
    index = models.read_json(bundle.pipeline_folder / "model_index.json")
    controlled = chosen == "controlnet" and "controlnet" not in parts
    how = LoadOptions(options, on_nonfinite, on_unsupported_size, model, low_memory, trust)
    given: dict[str, Any] = {**load_modules(bundle, how, controlled), **parts}
    for name, parameter in inspect.signature(cls.__init__).parameters.items():
        entry = index.get(name)
        if name in given or name == "self":
            continue
        if name.startswith(("scheduler", "tokenizer")) and entry and entry[1]:
            library = diffusers if name == "scheduler" else transformers
            given[name] = getattr(library, entry[1]).from_pretrained(bundle.pipeline_folder / name)
        elif name == "requires_safety_checker":
            given[name] = False
        elif entry is not None and not isinstance(entry, list):
            given[name] = entry
        elif parameter.default is inspect.Parameter.empty:
            given[name] = None
    return _adapt_methods(cls(**given), bundle)


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
    """Put the bundle's engines into a pipeline that you already have, in place, and return it.

    `options`, `on_nonfinite`, `on_unsupported_size` and `model` are those of `load`.
    Raises BundleError when a module's config differs from the one that the bundle was built from.
    """
    bundle = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle)
    if getattr(pipe, "controlnet", None) is not None:
        tasks.check_controlnet(bundle, True)  # it stays: no config says what it was trained to follow
    modules = load_modules(bundle, LoadOptions(options, on_nonfinite, on_unsupported_size, model, trust=trust))
    for name, module in modules.items():
        old = getattr(pipe, name, None)
        if old is None:
            raise BundleError(f"the pipeline has no {name}", received=type(pipe).__name__, expected=name)
        if getattr(old, "_hf_peft_config_loaded", False):
            raise Unsupported(f"an adapter is loaded into {name} and would be lost: {_LORA}")
        mine, theirs = (_comparable(m.config) for m in (module, old))
        if differ := sorted(k for k in mine.keys() & theirs.keys() if mine[k] != theirs[k]):
            raise BundleError(
                f"{name} of the pipeline is not the one that the bundle was built from",
                slug="bundle-other-model",
                received=", ".join(f"{k}={theirs[k]}" for k in differ),
                expected=", ".join(f"{k}={mine[k]}" for k in differ),
                hint="build a bundle from the pipeline's own checkpoint",
            )
    pipe.register_modules(**modules)
    return _adapt_methods(pipe, bundle)


def load_modules(bundle: Bundle, how: LoadOptions = DEFAULTS, controlled: bool = False) -> dict[str, nn.Module]:
    """The bundle's engines as modules, by the diffusers attribute that each serves; ControlNets if `controlled`."""
    from sdtrt.pipelines import engine_controlnet
    from sdtrt.pipelines.engine_modules import NORM, EngineTextEncoder, EngineUNet, EngineVae

    watch = NonFiniteDetector(how.on_nonfinite)
    nets = bundle.controlnets or {}
    loaded = load_engines(bundle, how, () if controlled else nets)
    modules: dict[str, nn.Module] = {}
    if mine := {n: loaded.pop(n) for n in nets if n in loaded}:
        modules["controlnet"] = engine_controlnet.load(mine, nets, watch)
    for attribute in dict.fromkeys(e.spec.attribute for e in loaded.values()):
        mine = {n: e for n, e in loaded.items() if e.spec.attribute == attribute}
        folder = bundle.pipeline_folder / attribute
        if attribute == "unet":
            modules[attribute] = EngineUNet(mine, folder, watch)
        elif attribute == "vae":
            modules[attribute] = EngineVae(mine, folder, watch)
        else:
            modules[attribute] = EngineTextEncoder(mine, folder, bundle.path / attribute / NORM, watch)
    return modules


def load_engines(
    bundle: Bundle, how: LoadOptions = DEFAULTS, without: Container[str] = ()
) -> dict[str, engines.Engine]:
    """All engines of a bundle by component name, but those that are named in `without`.

    BundleError for native code that was pulled from a hub, unless its author is trusted.
    """
    beyond.check(how.on_unsupported_size)
    manifest = bundle.manifest
    backend = engines.require(manifest.backend)
    _check_trust(bundle, backend, how.trust)
    specs = models.load(manifest.family).components(bundle.pipeline_folder, manifest.precision, bundle.controlnets)
    checked = backend.check_options({**manifest.options, **(how.options or {})})
    parts = {}
    for name in (n for n in manifest.components if n not in without):
        bundle.check_sizes(name)
        bundle.check_code(name, backend.code_files)
        context = engines.EngineContext(
            spec=specs[name],
            profiles=manifest.shape_profiles,
            options=checked,
            rebuild=f"sdtrt build {manifest.model} --out {bundle.path}",
            describe_add_profile=partial(beyond.describe_add_profile, bundle, specs, backend),
            eager=beyond.eager(bundle, specs[name], how.model) if how.on_unsupported_size == "eager" else None,
        )
        parts[name] = bundle.folder(name), context
    if how.low_memory:
        return engines.load_lazily(backend, parts)
    # Loading takes more memory than running: the largest goes first, when there is nothing beside it.
    largest_first = sorted(parts, key=lambda name: -(manifest.components[name].weight_bytes or 0))
    loaded = {name: backend.load(*parts[name]) for name in largest_first}
    return {name: loaded[name] for name in parts}


def _check_trust(bundle: Bundle, backend: engines.Backend, trust: bool) -> None:
    """BundleError for native code from elsewhere that nobody vouches for."""
    origin = provenance.of(bundle) if backend.native_code and not trust else None
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

    parts = (net for part in pipe.components.values() for net in getattr(part, "nets", [part]))
    modules = [m for m in parts if isinstance(m, EngineModule)]
    return {n: e for m in modules for n, e in m.engines.items()}


def timed(
    pipe: DiffusionPipeline, call: Callable[[], T], *, steps: int, images: int, height: int, width: int
) -> tuple[T, ImageRun]:
    """Call and record the wall time and every engine's part of it; what other threads do meanwhile is not in it.

    On a GPU each engine waits for its own end meanwhile, so that its time is its own: the call takes a little longer.
    """
    used = engines_of(pipe)
    with engines.time_calls() as times:
        started = time.perf_counter()
        result = call()
        wall_ms = (time.perf_counter() - started) * 1e3
    ran: Any = times.pipeline or pipe
    return result, ImageRun(
        steps=steps,
        images=images,
        height=height,
        width=width,
        guidance_scale=getattr(ran, "guidance_scale", None),
        scheduler=type(ran.scheduler).__name__,
        device=next((e.backend.device(e.context.options) for e in used.values()), None),
        wall_ms=wall_ms,
        engines={n: _calls(*times.by_engine[e]) for n, e in sorted(used.items()) if e in times.by_engine},
    )


def _calls(count: int, seconds: float) -> EngineCalls:
    return EngineCalls(count=count, total_ms=seconds * 1e3)


def _adapt_methods(pipe: DiffusionPipeline, bundle: Bundle) -> DiffusionPipeline:
    """Refuse what engines cannot do; LoRA works where the weights in the engines can be replaced."""
    from sdtrt.pipelines.engine_modules import EngineModule

    _refuse_methods(thread_safety.thread_safe(pipe), _REFUSED)
    _look_at_the_end(pipe)
    parts = {n: m for n in _LORA_PARTS if (m := getattr(pipe, n, None)) is not None}
    mine = {n: m.engines[n] for n, m in parts.items() if isinstance(m, EngineModule)}
    eager = {n: m for n, m in parts.items() if n not in mine}
    if any(bundle.manifest.components[n].quantization for n in mine):
        # Other weights have other ranges than those that were measured.
        return _refuse_methods(pipe, dict.fromkeys(lora.METHODS, _LORA))
    try:
        switch = lora.LoraSwitch(mine, eager, bundle.pipeline_folder, hasattr(pipe, "text_encoder_2"))
    except Unsupported:
        return _refuse_methods(pipe, dict.fromkeys(lora.METHODS, _LORA))
    for name in lora.METHODS:
        setattr(pipe, name, getattr(switch, name))
    pipe.lora_switch = switch
    return pipe


def _look_at_the_end(pipe: DiffusionPipeline) -> None:
    """Every call of a pipeline ends with this method, also one that decodes no image.

    The pipeline is not held by its own method: dropping it frees its engines at once.
    """
    from sdtrt.pipelines.engine_modules import EngineModule

    whose, free = ref(pipe), type(pipe).maybe_free_model_hooks
    watch = next(m.watch for m in pipe.components.values() if isinstance(m, EngineModule))

    def look_and_free() -> None:
        if (owner := whose()) is not None:
            free(owner)
        watch.finish()

    pipe.maybe_free_model_hooks = look_and_free


def _refuse_methods(pipe: DiffusionPipeline, reasons: Mapping[str, str]) -> DiffusionPipeline:
    def refusing(name: str, reason: str) -> Callable[..., Any]:
        def refuse(*args: Any, **kwargs: Any) -> Any:
            raise Unsupported(f"{name} does not work on a pipeline with engines: {reason}")

        return refuse

    for name, reason in reasons.items():
        if hasattr(pipe, name):
            setattr(pipe, name, refusing(name, reason))
    return pipe


def _comparable(config: Any) -> dict[str, Any]:
    """Config values without what says where and by which version it was saved."""
    data = config.to_dict() if hasattr(config, "to_dict") else dict(config)
    skip = ("_", "transformers_version", "dtype", "torch_dtype", "architectures")
    plain = {k: list(v) if isinstance(v, tuple) else v for k, v in data.items()}
    return {k: v for k, v in plain.items() if not k.startswith(skip)}
