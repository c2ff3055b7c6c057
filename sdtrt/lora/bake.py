"""LoRAs fused into a checkpoint's modules before the export."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdtrt import models
from sdtrt.config import LoraEntry
from sdtrt.lora.files import read, resolve
from sdtrt.shapes.spec import ComponentSpec
from sdtrt.system import files


@dataclass(frozen=True)
class BakedLora:
    """A LoRA of a recipe: its file, scale and sha256 digest, and the components of the pipeline that it changes."""

    path: Path
    scale: float
    digest: str
    parts: tuple[str, ...]

    def __str__(self) -> str:
        """The text in an engine's key."""
        return f"{self.digest} x {self.scale:g}"


def baked(entries: Sequence[LoraEntry], specs: Mapping[str, ComponentSpec], folder: Path) -> tuple[BakedLora, ...]:
    """Find the LoRAs of a recipe and check that each fits the model in `folder`; ModelError for one that does not."""
    if not entries:
        return ()
    from sdtrt.lora.adapters import AdapterModules

    xl = "text_encoder_2" in specs
    modules: dict[str, Any] = {
        name: models.skeleton(spec, folder).inner
        for name, spec in specs.items()
        if name == "unet" or name.startswith("text_encoder")
    }
    adapters, loras = AdapterModules(modules, xl, ()), []
    for entry in entries:
        path = resolve(entry.path)
        file = read(path, folder, xl)
        adapters.targets(file)
        loras.append(BakedLora(path, entry.scale, files.sha256(path)[:16], file.parts))
    return tuple(loras)


def bake(module: Any, spec: ComponentSpec, loras: Sequence[BakedLora], folder: Path) -> None:
    """Fuse LoRAs into the module of a component, in place.

    Args:
        module: the exportable module; `module.inner` is diffusers' or transformers' own.
        spec: the component.
        loras: those that do not change the component are left out.
        folder: the configs of the model, in diffusers' layout.

    Raises:
        ModelError: a LoRA does not fit, or makes a weight overflow.
    """
    part, inner = spec.attribute, module.inner
    own = [lora for lora in loras if part in lora.parts]
    if not own:
        return
    from sdtrt.lora.adapters import AdapterModules, active, fuse

    xl = "text_encoder_2" in models.read_json(folder / "model_index.json")
    adapters = AdapterModules({part: inner}, xl, (part,))
    names = [f"lora_{i}" for i in range(len(own))]
    for name, lora in zip(names, own, strict=True):
        adapters.add(read(lora.path, folder, xl).only(part), name)
    adapters.loader.set_adapters(names, [lora.scale for lora in own])
    fused = fuse(inner, active(inner), 1.0, {})
    adapters.loader.unload_lora_weights()
    inner.load_state_dict(fused, strict=False)
    inner.requires_grad_(False)
