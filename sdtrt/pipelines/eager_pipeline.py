"""A checkpoint's stock pipeline in float32 on the CPU: the reference that engines are compared with."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sdtrt import lora, models


def eager(folder: Path, loras: Sequence[lora.BakedLora] = (), **parts: Any) -> Any:
    """Load a checkpoint's stock pipeline in float32 on the CPU, with LoRAs as diffusers loads them."""
    import diffusers
    import torch

    family = models.family_of(folder)
    cls = getattr(diffusers, family.pipelines[family.own_task(folder)])
    index = models.read_json(folder / "model_index.json")
    if "safety_checker" in index:
        parts |= {"safety_checker": None, "requires_safety_checker": False}
    if "unet" not in parts:  # first: the largest file is in memory while it is read
        unet: Any = family.components(folder, "fp32")["unet"].load(folder)
        parts["unet"] = unet.inner
    pipe = cls.from_pretrained(folder, dtype=torch.float32, use_safetensors=True, local_files_only=True, **parts)
    pipe.set_progress_bar_config(disable=True)
    names = [f"lora_{number}" for number in range(len(loras))]
    with lora.quiet():
        for name, entry in zip(names, loras, strict=True):
            pipe.load_lora_weights(str(entry.path), adapter_name=name)
    if loras:
        pipe.set_adapters(names, [entry.scale for entry in loras])
    return pipe
