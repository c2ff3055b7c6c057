"""Tiny adapters with random weights for a model's U-Net and text encoders, made by peft and saved as trainers do."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from peft import LoraConfig, get_peft_model_state_dict, inject_adapter_in_model
from safetensors.torch import save_file
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

TARGETS = {"unet": ["to_q", "to_v", "to_out.0", "conv1", "proj_in"], "text": ["q_proj", "v_proj", "fc1"]}
RANK = 2


def make(path: Path, model: Path, seed: int, parts: Sequence[str] = ("unet", "text_encoder", "text_encoder_2")) -> Path:
    """Write a LoRA in diffusers' form; its alpha is twice its rank, as peft says in the file's metadata."""
    from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline

    torch.manual_seed(seed)
    layers: dict[str, dict[str, Tensor]] = {}
    facts: dict[str, Any] = {}
    for part in parts:
        if not (model / part).is_dir():
            continue
        module = _empty(model, part)
        targets = TARGETS["unet" if part == "unet" else "text"]
        config = LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules=targets, init_lora_weights=False)
        module = inject_adapter_in_model(config, module)
        layers[part] = {name: tensor * 0.5 for name, tensor in get_peft_model_state_dict(module).items()}
        facts[part] = module.peft_config["default"].to_dict()
    names = {"unet": "unet_lora_layers", "text_encoder": "text_encoder_lora_layers"}
    names |= {"text_encoder_2": "text_encoder_2_lora_layers"}
    xl = (model / "text_encoder_2").is_dir()
    pipeline = StableDiffusionXLPipeline if xl else StableDiffusionPipeline
    meta = {names[p].replace("layers", "adapter_metadata"): f for p, f in facts.items()}
    pipeline.save_lora_weights(
        path.parent, **{names[p]: tensors for p, tensors in layers.items()}, **meta, weight_name=path.name
    )
    return path


def kohya(path: Path, model: Path, seed: int) -> Path:
    """Write a LoRA of the U-Net's attention and the text encoder in the form of kohya's trainer, with an alpha."""
    torch.manual_seed(seed)
    tensors: dict[str, Tensor] = {}
    for part, prefix, ends in (
        ("unet", "lora_unet", ("to_q", "to_out.0")),
        ("text_encoder", "lora_te", ("q_proj", "out_proj")),
    ):
        for name, module in _empty(model, part).named_modules():
            if name.endswith(ends):
                inside = name if part == "unet" else f"text_model.{name.removeprefix('text_model.')}"
                key = f"{prefix}_{inside.replace('.', '_')}"
                tensors[f"{key}.lora_down.weight"] = torch.randn(RANK, module.in_features) * 0.3
                tensors[f"{key}.lora_up.weight"] = torch.randn(module.out_features, RANK) * 0.3
                tensors[f"{key}.alpha"] = torch.tensor(1.0)
    save_file(tensors, path)
    return path


def _empty(model: Path, part: str) -> Any:
    if part == "unet":
        return UNet2DConditionModel.from_config(UNet2DConditionModel.load_config(model / part))
    cls = CLIPTextModelWithProjection if part == "text_encoder_2" else CLIPTextModel
    return cls(CLIPTextConfig.from_pretrained(model / part))
