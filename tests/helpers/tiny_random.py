"""Tiny random-weight pipelines of each family: where shapes and structure matter and pictures do not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sdtrt.system import files

FAMILIES = ("sd1", "sd2", "sdxl")
# sd1 has dynamic sizes in steps of 32; the others vary the batch only, which exports in half the time.
PROFILES = {
    "sd1": "B=1:1:4,H=64:128:192,W=64:128:192",
    "sd2": "B=1:1:2,H=128,W=128",
    "sdxl": "B=1:1:2,H=128,W=128",
}
# What is looked at in half precision too, each with an export of one fixed size.
IN_HALF = (("sdxl", "unet"), ("sd2", "text_encoder"))
STATIC = "B=1,H=128,W=128,T=77"


def make(folder: Path, family: str = "sd1", width: int = 64, seed: int = 0) -> Path:
    """Write a tiny random-weight pipeline of `family` into `folder`, unless it is there; 16x16 latents, 128 pixels.

    "sd1" has convolutional projections and fixed heads, "sd2" linear projections, heads per block and v-prediction,
    "sdxl" two text encoders and micro-conditioning, each as in the checkpoints they stand for.
    """
    if (folder / "model_index.json").is_file():
        return folder
    import torch
    from diffusers import (
        AutoencoderKL,
        EulerDiscreteScheduler,
        StableDiffusionPipeline,
        StableDiffusionXLPipeline,
        UNet2DConditionModel,
    )

    xl = family == "sdxl"
    attention, plain = "CrossAttn{}Block2D", "{}Block2D"
    # SD 1.x and 2.x end with a level without attention; SDXL begins with one, and here it ends with one as well.
    levels = (attention, plain) if family == "sd2" else (plain if xl else attention, attention, plain)
    unet: dict[str, Any] = {"use_linear_projection": family != "sd1"}
    unet["attention_head_dim"] = 4 if family == "sd1" else (2, 4, 4)[: len(levels)]
    if xl:
        unet |= {
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 8,
            "projection_class_embeddings_input_dim": 6 * 8 + width,
            "transformer_layers_per_block": (1, 1, 2),
        }
    torch.manual_seed(seed)
    parts: dict[str, Any] = {
        "unet": UNet2DConditionModel(
            sample_size=16,
            block_out_channels=(width, 2 * width, 2 * width)[: len(levels)],
            layers_per_block=1,
            down_block_types=tuple(level.format("Down") for level in levels),
            up_block_types=tuple(level.format("Up") for level in reversed(levels)),
            cross_attention_dim=2 * width if xl else width,
            norm_num_groups=16,
            **unet,
        ),
    }
    torch.manual_seed(seed)  # all families have the same VAE, which is then exported once
    parts |= {
        "vae": AutoencoderKL(
            block_out_channels=(32, 32, 64, 64),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            latent_channels=4,
            norm_num_groups=16,
            sample_size=128,
            force_upcast=xl,
            scaling_factor=0.13025 if xl else 0.18215,
        ),
        "scheduler": EulerDiscreteScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            prediction_type="v_prediction" if family == "sd2" else "epsilon",
            steps_offset=1,
            timestep_spacing="leading",
        ),
    }
    work = folder.with_name(f".{folder.name}.tmp")
    for suffix in ("", "_2") if xl else ("",):
        tokenizer, encoder = _text_encoder(work / f"tokenizer{suffix}", width, projected=suffix == "_2")
        parts |= {f"tokenizer{suffix}": tokenizer, f"text_encoder{suffix}": encoder}
    bare = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    pipe = StableDiffusionXLPipeline(**parts) if xl else StableDiffusionPipeline(**parts, **bare)
    pipe.save_pretrained(work)
    files.replace_folder(work, folder)
    return folder


def _text_encoder(folder: Path, width: int, projected: bool) -> tuple[Any, Any]:
    """A CLIP tokenizer that spells words letter by letter, and a two-layer encoder for it."""
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

    letters = [chr(c) for c in range(33, 127)]
    tokens = [*letters, *(f"{c}</w>" for c in letters), "<|startoftext|>", "<|endoftext|>"]
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary, merges = folder / "vocab.json", folder / "merges.txt"
    vocabulary.write_text(json.dumps({t: i for i, t in enumerate(tokens)}), encoding="utf-8")
    merges.write_text("#version: 0.2\n", encoding="utf-8")
    config = CLIPTextConfig(
        vocab_size=len(tokens),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=2,
        num_attention_heads=4,
        projection_dim=width,
        bos_token_id=len(tokens) - 2,
        eos_token_id=len(tokens) - 1,
        pad_token_id=len(tokens) - 1,
    )
    encoder = (CLIPTextModelWithProjection if projected else CLIPTextModel)(config)
    return CLIPTokenizer(str(vocabulary), str(merges), model_max_length=77), encoder
