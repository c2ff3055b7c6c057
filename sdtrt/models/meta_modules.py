"""The modules of a checkpoint without its weights: their structure, on the meta device."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdtrt.models.family import read_json
from sdtrt.models.unet import DOWN, MIDDLE
from sdtrt.shapes.spec import ComponentSpec

if TYPE_CHECKING:
    from torch import nn


def skeleton(spec: ComponentSpec, folder: Path) -> nn.Module:
    """The U-Net or text encoder of the configs in `folder`: parameters on the meta device, buffers in memory."""
    from accelerate import init_empty_weights
    from diffusers import UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    from sdtrt.models.exportable_modules import TextEncoder, UNet

    with init_empty_weights(include_buffers=False):
        if spec.attribute == "unet":
            inner = UNet2DConditionModel.from_config(read_json(folder / "unet" / "config.json"))
            residual_names = [t.name for t in spec.inputs if t.name.startswith((DOWN, MIDDLE))]
            return UNet(inner, residual_names).eval().requires_grad_(False)
        projected = any(t.name == "text_embeds" for t in spec.outputs)
        cls: Any = CLIPTextModelWithProjection if projected else CLIPTextModel
        return TextEncoder(cls(CLIPTextConfig.from_pretrained(folder / spec.attribute))).eval().requires_grad_(False)
