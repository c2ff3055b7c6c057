"""The configs of three real checkpoints, so that modules of their true size can be made without their weights.

As published in stable-diffusion-v1-5/stable-diffusion-v1-5, stabilityai/stable-diffusion-2-1 and
stabilityai/stable-diffusion-xl-base-1.0: what is left out has the default value of diffusers or transformers.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from sdtrt.models import exportable_modules
from sdtrt.shapes.spec import ComponentSpec

Config = dict[str, Any]

_DOWN, _UP = "CrossAttnDownBlock2D", "CrossAttnUpBlock2D"


def _text(projected: bool = False, **values: Any) -> Config:
    return {
        "architectures": ["CLIPTextModelWithProjection" if projected else "CLIPTextModel"],
        "bos_token_id": 0,
        "eos_token_id": 2,
        "max_position_embeddings": 77,
        "pad_token_id": 1,
        "vocab_size": 49408,
        **values,
    }


def _vae(**values: Any) -> Config:
    return {
        "block_out_channels": [128, 256, 512, 512],
        "down_block_types": ["DownEncoderBlock2D"] * 4,
        "in_channels": 3,
        "latent_channels": 4,
        "layers_per_block": 2,
        "norm_num_groups": 32,
        "out_channels": 3,
        "up_block_types": ["UpDecoderBlock2D"] * 4,
        **values,
    }


def _unet(**values: Any) -> Config:
    return {"in_channels": 4, "layers_per_block": 2, "out_channels": 4, "use_linear_projection": True} | values


_CLIP_L = _text(
    hidden_act="quick_gelu",
    hidden_size=768,
    intermediate_size=3072,
    num_attention_heads=12,
    num_hidden_layers=12,
    projection_dim=768,
)

CHECKPOINTS: dict[str, dict[str, Config]] = {
    "sd15": {
        "model_index": {"_class_name": "StableDiffusionPipeline"},
        "text_encoder": _CLIP_L,
        "unet": _unet(
            attention_head_dim=8,
            block_out_channels=[320, 640, 1280, 1280],
            cross_attention_dim=768,
            down_block_types=[_DOWN, _DOWN, _DOWN, "DownBlock2D"],
            sample_size=64,
            up_block_types=["UpBlock2D", _UP, _UP, _UP],
            use_linear_projection=False,
        ),
        "vae": _vae(sample_size=512, scaling_factor=0.18215),
    },
    "sd21": {
        "model_index": {"_class_name": "StableDiffusionPipeline"},
        "text_encoder": _text(
            hidden_act="gelu",
            hidden_size=1024,
            intermediate_size=4096,
            num_attention_heads=16,
            num_hidden_layers=23,
            projection_dim=512,
        ),
        "unet": _unet(
            attention_head_dim=[5, 10, 20, 20],
            block_out_channels=[320, 640, 1280, 1280],
            cross_attention_dim=1024,
            down_block_types=[_DOWN, _DOWN, _DOWN, "DownBlock2D"],
            sample_size=96,
            up_block_types=["UpBlock2D", _UP, _UP, _UP],
            upcast_attention=True,
        ),
        "vae": _vae(sample_size=768, scaling_factor=0.18215),
    },
    "sdxl": {
        "model_index": {"_class_name": "StableDiffusionXLPipeline"},
        "text_encoder": _CLIP_L,
        "text_encoder_2": _text(
            projected=True,
            hidden_act="gelu",
            hidden_size=1280,
            intermediate_size=5120,
            num_attention_heads=20,
            num_hidden_layers=32,
            projection_dim=1280,
        ),
        "unet": _unet(
            addition_embed_type="text_time",
            addition_time_embed_dim=256,
            attention_head_dim=[5, 10, 20],
            block_out_channels=[320, 640, 1280],
            cross_attention_dim=2048,
            down_block_types=["DownBlock2D", _DOWN, _DOWN],
            projection_class_embeddings_input_dim=2816,
            sample_size=128,
            transformer_layers_per_block=[1, 2, 10],
            up_block_types=[_UP, _UP, "UpBlock2D"],
        ),
        "vae": _vae(force_upcast=True, sample_size=1024, scaling_factor=0.13025),
    },
    # No checkpoint: to try a benchmark without a GPU.
    "tiny": {
        "model_index": {"_class_name": "StableDiffusionPipeline"},
        "text_encoder": _CLIP_L
        | {"num_hidden_layers": 1, "hidden_size": 64, "intermediate_size": 64, "num_attention_heads": 2},
        "unet": _unet(
            attention_head_dim=2,
            block_out_channels=[32, 64],
            cross_attention_dim=64,
            down_block_types=[_DOWN, "DownBlock2D"],
            layers_per_block=1,
            sample_size=8,
            up_block_types=["UpBlock2D", _UP],
        ),
        "vae": _vae(block_out_channels=[32, 32, 32, 32], layers_per_block=1, sample_size=64, scaling_factor=0.18215),
    },
}


def write(model: str, folder: Path) -> None:
    """Write the configs as a checkpoint without weights, in diffusers' layout."""
    parts = dict(CHECKPOINTS[model])
    index = parts.pop("model_index") | {name: ["", ""] for name in parts}
    (folder / "model_index.json").write_text(json.dumps(index), encoding="utf-8")
    for name, config in parts.items():
        (folder / name).mkdir()
        (folder / name / "config.json").write_text(json.dumps(config), encoding="utf-8")


def module_of(spec: ComponentSpec, config: Mapping[str, Any]) -> nn.Module:
    """The module of a component with the weights that diffusers or transformers draw, on torch's default device."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    if spec.attribute == "unet":
        return exportable_modules.UNet(UNet2DConditionModel.from_config(config))
    if spec.attribute == "vae":
        wrapper = exportable_modules.VaeDecoder if spec.name == "vae_decoder" else exportable_modules.VaeEncoder
        return wrapper(AutoencoderKL.from_config(config))
    projected = config["architectures"] == ["CLIPTextModelWithProjection"]
    cls = CLIPTextModelWithProjection if projected else CLIPTextModel
    return exportable_modules.TextEncoder(cls(CLIPTextConfig(**config)))
