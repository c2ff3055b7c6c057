"""Adapters fused into a checkpoint's modules before they are exported."""

from __future__ import annotations

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
    """A LoRA of a recipe: its file, scale and content's digest, and the parts of the pipeline that it changes."""

    path: Path
    scale: float
    digest: str
    parts: tuple[str, ...]

    def __str__(self) -> str:
        """As it stands in an engine's key."""
        return f"{self.digest} x {self.scale:g}"


def baked(entries: Sequence[LoraEntry], specs: Mapping[str, ComponentSpec], folder: Path) -> tuple[BakedLora, ...]:
    """Find the LoRAs of a recipe and check that each fits the model in `folder`; ModelError says what does not."""
    if not entries:
        return ()
    from sdtrt.lora.adapters import AdapterModules

    xl = "text_encoder_2" in specs
    parts = {n: s for n, s in specs.items() if n == "unet" or n.startswith("text_encoder")}
    modules: dict[str, Any] = {n: models.skeleton(s, folder).inner for n, s in parts.items()}
    shadow, found = AdapterModules(modules, xl, ()), []
    for entry in entries:
        path = resolve(entry.path)
        file = read(path, folder, xl)
        shadow.targets(file)
        found.append(BakedLora(path, entry.scale, files.sha256(path)[:16], file.parts))
    return tuple(found)


def bake(module: Any, spec: ComponentSpec, loras: Sequence[BakedLora], folder: Path) -> None:
    """Fuse the LoRAs that name this component into its module, in place; `folder` has the model's configs."""
    mine = [lora for lora in loras if spec.attribute in lora.parts]
    if not mine:
        return
    from sdtrt.lora.adapters import AdapterModules, active, fuse

    part, inner = spec.attribute, module.inner
    xl = "text_encoder_2" in models.read_json(folder / "model_index.json")
    shadow = AdapterModules({part: inner}, xl, (part,))
    names = [f"lora_{i}" for i in range(len(mine))]
    for name, lora in zip(names, mine, strict=True):
        shadow.add(read(lora.path, folder, xl).only(part), name)
    shadow.loader.set_adapters(names, [lora.scale for lora in mine])
    fused = fuse(inner, active(inner))
    shadow.loader.unload_lora_weights()
    inner.load_state_dict(fused, strict=False)
    inner.requires_grad_(False)
