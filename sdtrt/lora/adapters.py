"""Modules with adapters on them, loaded, scaled and fused by diffusers' and peft's own code."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from diffusers.utils import convert_state_dict_to_diffusers, convert_state_dict_to_peft, convert_unet_state_dict_to_peft
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from sdtrt.errors import ConfigError, ModelError
from sdtrt.lora.files import LoraFile, mixin, quiet

_KEY = re.compile(r"(?P<module>.+)\.(?P<kind>lora_[AB]|lora_magnitude_vector|lokr_\w+)(\..+)?")
_BASE = ".base_layer"
_SHOWN = 5


class AdapterModules:
    """The components of a pipeline that LoRAs change, by name; `loader` is diffusers' LoRA loader on them.

    Adapters of the components `in_float32` are kept in float32, so that they are fused without loss.
    """

    def __init__(self, modules: Mapping[str, nn.Module], xl: bool, in_float32: Sequence[str]) -> None:
        self.modules, self._in_float32 = dict(modules), in_float32
        self.loader: Any = type("Loader", (mixin(xl),), {})()
        for name in self.loader._lora_loadable_modules:
            setattr(self.loader, name, self.modules.get(name))

    def names(self) -> set[str]:
        """Names of all adapters."""
        return {name for names in self.loader.get_list_adapters().values() for name in names}

    def add(self, file: LoraFile, name: str | None = None) -> str:
        """Load an adapter and make it the active one; ModelError names the keys that fit nowhere."""
        taken = self.names()
        name = name or next(n for i in range(len(taken) + 1) if (n := f"default_{i}") not in taken)
        if name in taken:
            raise ConfigError(
                "there is an adapter of this name",
                slug="lora-name",
                received=name,
                expected=f"another name than {', '.join(sorted(taken))}",
                hint=f"unload it first: pipe.delete_adapters({name!r})",
            )
        self.targets(file)
        try:
            for part in file.parts:
                self._load(part, file, name)
        except (ValueError, RuntimeError, KeyError, TypeError) as exc:
            self.loader.delete_adapters([n for n in (name,) if n in self.names()])
            raise ModelError(
                "the LoRA does not fit the model",
                slug="lora-mismatch",
                received=f"{file.name}: {str(exc)[:300]}",
                expected="the shapes of the model that the bundle was built from",
            ) from exc
        return name

    def targets(self, file: LoraFile) -> dict[str, set[str]]:
        """The modules that an adapter changes, by component; ModelError for one of another kind of model."""
        modules: dict[str, set[str]] = {part: set() for part in file.parts}
        wrong = [key for key in file.state if key.partition(".")[0] not in self.modules]
        for part in file.parts:
            if part in self.modules:
                for key, tensor in _peft_keys(part, file, self.modules[part]).items():
                    module = _target(self.modules[part], key, tensor)
                    if module is None:
                        wrong.append(f"{part}.{key}")
                    else:
                        modules[part].add(module)
        if wrong:
            raise ModelError(
                "the LoRA is for another kind of model",
                slug="lora-keys",
                received=f"{file.name}: {len(wrong)} of {len(file.state)} keys fit nowhere: "
                f"{', '.join(wrong[:_SHOWN])}{', ...' if wrong[_SHOWN:] else ''}",
                expected=f"layers of {', '.join(self.modules)}, of the sizes that they have here",
                hint="use a LoRA that was trained on this model's family: SD 1.x, SD 2.x and SDXL differ",
            )
        return modules

    def _load(self, part: str, file: LoraFile, name: str) -> None:
        arguments: dict[str, Any] = {
            "network_alphas": dict(file.alphas) if file.alphas else None,
            "metadata": dict(file.metadata) if file.metadata else None,
            "adapter_name": name,
            "low_cpu_mem_usage": True,
        }
        state, module = dict(file.state), self.modules[part]
        with quiet():
            if part == "unet":
                self.loader.load_lora_into_unet(state, unet=module, **arguments)
            else:
                self.loader.load_lora_into_text_encoder(state, text_encoder=module, prefix=part, **arguments)
        for _, layer in layers(module) if part in self._in_float32 else ():
            for kind in layer.adapter_layer_names:
                getattr(layer, kind).float()


def layers(module: nn.Module) -> Iterator[tuple[str, Any]]:
    """The modules that have adapters, with their names."""
    return ((name, m) for name, m in module.named_modules() if isinstance(m, BaseTunerLayer))


def active(module: nn.Module) -> set[str]:
    """Names of the active adapters of a module."""
    return {n for _, layer in layers(module) if not layer.disable_adapters for n in layer.active_adapters}


def active_scales(module: nn.Module, exclude: set[str]) -> frozenset[object]:
    """Layers, active adapters and their scales: equal sets give equal weights."""
    return frozenset(
        (path, name, layer.scaling[name])
        for path, layer in layers(module)
        if not layer.disable_adapters
        for name in layer.active_adapters
        if name not in exclude and _has(layer, name)
    )


def activate(module: nn.Module, names: Sequence[str]) -> None:
    """Make exactly these adapters of a module active."""
    for _, layer in layers(module):
        layer.set_adapter(list(names))


def fuse(module: nn.Module, names: set[str], scale: float, base_overrides: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Compute the weights with adapters added; the module keeps its own.

    The sum is made in float32 and rounded once, to the dtype of the module's weight.

    Args:
        module: the module that the adapters are on.
        names: the adapters to add.
        scale: factor of what they add.
        base_overrides: base weights by parameter, in the place of the module's.

    Raises:
        ModelError: a weight overflows.
    """
    fused: dict[str, Tensor] = {}
    for path, layer in layers(module):
        adapters = [n for n in layer.active_adapters if n in names and _has(layer, n)]
        adapters += [n for n in sorted(names) if n not in adapters and _has(layer, n)]
        if not adapters:
            continue
        with _in_float32(layer, path, base_overrides, scale) as changed:
            layer.merge(adapter_names=adapters)
        for name, tensor in changed.items():
            if not torch.isfinite(tensor).all():
                raise ModelError(
                    "an adapter makes weights overflow",
                    slug="lora-overflow",
                    received=f"{', '.join(adapters)} in {name}",
                    expected=f"finite weights in {tensor.dtype}",
                    hint="use a smaller adapter weight, or check the file",
                )
        fused |= changed
    return fused


@contextmanager
def _in_float32(
    layer: Any, path: str, base_overrides: Mapping[str, Tensor], scale: float
) -> Iterator[dict[str, Tensor]]:
    """Give the layer float32 copies of its weights; the dict gets what they became, in their own dtype."""
    base, scaling = layer.get_base_layer(), layer.scaling
    own = {kind: p for kind in ("weight", "bias") if (p := getattr(base, kind, None)) is not None}
    start = {kind: base_overrides.get(f"{path}.{kind}", p.data).float() for kind, p in own.items()}
    changed: dict[str, Tensor] = {}
    try:
        layer.scaling = {name: value * scale for name, value in scaling.items()}
        for kind, tensor in start.items():
            setattr(base, kind, nn.Parameter(tensor.clone(), requires_grad=False))
        yield changed
        for kind, tensor in start.items():
            merged = getattr(base, kind).data
            if kind == "weight" or not torch.equal(merged, tensor):
                changed[f"{path}.{kind}"] = merged.to(own[kind].dtype)
    finally:
        for kind, parameter in own.items():
            setattr(base, kind, parameter)
        layer.scaling = scaling
        layer.merged_adapters = []


def _has(layer: Any, name: str) -> bool:
    return any(name in getattr(layer, kind) for kind in layer.adapter_layer_names)


def _peft_keys(part: str, file: LoraFile, module: nn.Module) -> dict[str, Tensor]:
    """The tensors of one component under the names by which diffusers loads them."""
    state = {k.removeprefix(f"{part}."): v for k, v in file.state.items() if k.startswith(f"{part}.")}
    if part != "unet":
        try:
            state = convert_state_dict_to_peft(convert_state_dict_to_diffusers(state))
        except ValueError:  # a form that diffusers does not know: no key fits, and the error lists them
            return dict(state)
        if not hasattr(module, "text_model"):
            state = {k.removeprefix("text_model."): v for k, v in state.items()}
    elif not any("lora_A" in k or "lokr_" in k for k in state):
        state = convert_unet_state_dict_to_peft(state)
    return dict(state)


def _target(module: nn.Module, key: str, tensor: Tensor) -> str | None:
    """The name of the module that a key is for; None when there is none, or one of another size."""
    match = _KEY.fullmatch(key)
    if match is None:
        return None
    try:
        layer = module.get_submodule(match["module"])
    except AttributeError:
        return None
    weight = getattr(getattr(layer, "base_layer", layer), "weight", None)
    if weight is None or weight.ndim < 2:
        return None
    axis = {"lora_A": 1, "lora_B": 0}.get(match["kind"])
    return match["module"] if axis is None or tensor.ndim < 2 or tensor.shape[axis] == weight.shape[axis] else None
