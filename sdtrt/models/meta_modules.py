"""The modules of a checkpoint without its weights: their structure, on the meta device."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from accelerate import init_empty_weights
from diffusers import UNet2DConditionModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from sdtrt.models import unet
from sdtrt.models.exportable_modules import TextEncoder
from sdtrt.models.family import read_json
from sdtrt.shapes.spec import ComponentSpec


def make(spec: ComponentSpec, folder: Path) -> nn.Module:
    """The U-Net or text encoder of the configs in `folder`, as `spec.load` returns it; its buffers are real."""
    module: Any
    with init_empty_weights(include_buffers=False):
        if spec.attribute == "unet":
            module = unet.wrap(UNet2DConditionModel.from_config(read_json(folder / "unet" / "config.json")), spec)
        else:
            projected = any(t.name == "text_embeds" for t in spec.outputs)
            cls = CLIPTextModelWithProjection if projected else CLIPTextModel
            module = TextEncoder(cls(CLIPTextConfig.from_pretrained(folder / spec.attribute)))
    meta_module: nn.Module = module.eval().requires_grad_(False)
    return meta_module
