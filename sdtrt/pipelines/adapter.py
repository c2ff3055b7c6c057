"""EnginePipeline: everything that a diffusers pipeline with engines does differently from the stock one.

`adapt` gives an existing object a subclass of its class. This mechanism serves `load`, which makes the object, and
`accelerate`, which must return the object of the user: instantiating a subclass would serve `load` only.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import cache, wraps
from typing import TYPE_CHECKING, Any

from sdtrt.bundle.bundle import Bundle
from sdtrt.engines import record_pipeline
from sdtrt.errors import Unsupported
from sdtrt.lora import METHODS, LoraSwitch
from sdtrt.pipelines import thread_safety

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

# Methods that with engines would do nothing, or half; the modules refuse more.
REFUSED = {
    "load_ip_adapter": "the exported U-Net has no image conditioning",
    "load_textual_inversion": "token embeddings are inside the text encoder's engine",
    "enable_xformers_memory_efficient_attention": "attention is compiled; it is not needed",
    "enable_model_cpu_offload": "engines stay on their device",
    "enable_sequential_cpu_offload": "engines stay on their device",
    "save_pretrained": "the bundle is the saved form; copy its folder",
}
FIXED_WEIGHTS = (
    "weights are fixed in these engines; build with the adapter, sdtrt build MODEL --lora FILE, or build engines that "
    "take other weights: onnxruntime's do, and TensorRT's with options: {refit: all}"
)
_LORA_COMPONENTS = ("text_encoder", "text_encoder_2", "unet")


class EnginePipeline:
    """Overrides of the stock pipeline class, which follows in the method resolution order.

    Two groups of methods are added by name: those of `REFUSED` raise Unsupported, and those of `lora.METHODS` go to
    `lora_switch`, which is missing where the weights of the engines are fixed.
    """

    lora_switch: LoraSwitch

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run on the object itself, or on a copy of it while the call of another thread runs on it."""
        with thread_safety.unshared(self) as pipe:
            try:
                return super(EnginePipeline, pipe).__call__(*args, **kwargs)  # type: ignore[misc]
            finally:
                record_pipeline(pipe)

    def encode_prompt(self, *args: Any, **kwargs: Any) -> Any:
        """Encode prompts in one thread at a time, see `thread_safety`."""
        with thread_safety.ENCODING:
            return super().encode_prompt(*args, **kwargs)  # type: ignore[misc]

    def maybe_free_model_hooks(self) -> None:
        """Check the outputs of the engines too: every call ends with this method, also one that decodes no image."""
        from sdtrt.pipelines.engine_modules import EngineModule

        super().maybe_free_model_hooks()  # type: ignore[misc]
        for module in self.components.values():  # type: ignore[attr-defined]
            if isinstance(module, EngineModule):
                module.detector.finish()


def adapt(pipe: DiffusionPipeline, bundle: Bundle) -> DiffusionPipeline:
    """Make `pipe`, which holds engines of `bundle` as modules, an EnginePipeline, in place.

    Stock pipelines that diffusers' `from_pipe` makes from one with engines can be adapted too.
    """
    from sdtrt.pipelines.engine_modules import EngineModule

    if not isinstance(pipe, EnginePipeline):
        pipe.__class__ = _adapted_class(pipe.__class__)
    vars(pipe).pop("lora_switch", None)
    modules = {n: m for n in _LORA_COMPONENTS if (m := getattr(pipe, n, None)) is not None}
    engines = {n: m.engines[n] for n, m in modules.items() if isinstance(m, EngineModule)}
    # Other weights have other ranges than those that a quantized build measured.
    if not any(bundle.manifest.components[n].quantization for n in engines):
        eager = {n: m for n, m in modules.items() if n not in engines}
        with suppress(Unsupported):
            pipe.lora_switch = LoraSwitch(engines, eager, bundle.pipeline_folder, hasattr(pipe, "text_encoder_2"))
    return pipe


@cache
def _adapted_class(stock: Any) -> Any:
    """The subclass of `stock`, with its name and docs, and with its signatures, which callers inspect."""
    body = {name: getattr(stock, name) for name in ("__module__", "__qualname__", "__doc__")}
    for name in ("__call__", "encode_prompt"):
        body[name] = _forward(getattr(EnginePipeline, name), getattr(stock, name))
    body |= {name: _refuse(name, reason) for name, reason in REFUSED.items() if hasattr(stock, name)}
    body |= {name: _switch_lora(name) for name in METHODS}
    return type(stock.__name__, (EnginePipeline, stock), body)


def _forward(method: Callable[..., Any], signature: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(signature)
    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        return method(self, *args, **kwargs)

    return forward


def _refuse(name: str, reason: str) -> Callable[..., Any]:
    def refuse(self: Any, *args: Any, **kwargs: Any) -> Any:
        raise Unsupported(f"{name} does not work on a pipeline with engines: {reason}")

    return refuse


def _switch_lora(name: str) -> Callable[..., Any]:
    refuse = _refuse(name, FIXED_WEIGHTS)

    @wraps(getattr(LoraSwitch, name))
    def switch_lora(self: EnginePipeline, *args: Any, **kwargs: Any) -> Any:
        if not hasattr(self, "lora_switch"):
            refuse(self)
        return getattr(self.lora_switch, name)(*args, **kwargs)

    return switch_lora
