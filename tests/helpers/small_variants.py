"""Small checkpoints whose U-Nets have other inputs, a ControlNet for one, and bundles of the parts that differ."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import shared_exports
import torch
from diffusers import ControlNetModel, UNet2DConditionModel
from filelock import FileLock

from sdtrt.builder import build as builder
from sdtrt.bundle.bundle import Bundle

SIZE = 64
PROFILE = f"B=1:1:2,H={SIZE},W={SIZE},T=77:77:231"


def checkpoint(source: Path, folder: Path, levels: int = 1, **config: Any) -> Path:
    """Copy the checkpoint in `source` with a U-Net of random weights that has attention in its middle only.

    It exports in a second or two; `config` changes it further.
    """
    if not folder.exists():
        work = folder.with_name(f".{folder.name}.tmp")
        shutil.rmtree(work, ignore_errors=True)
        shutil.copytree(source, work)
        torch.manual_seed(0)
        small = {
            "block_out_channels": [32] * levels,
            "down_block_types": ["DownBlock2D"] * levels,
            "up_block_types": ["UpBlock2D"] * levels,
            "attention_head_dim": 4,
            "transformer_layers_per_block": 1,
        }
        old = UNet2DConditionModel.load_config(source / "unet")
        UNet2DConditionModel.from_config({**old, **small, **config}).save_pretrained(work / "unet")
        work.replace(folder)
    return folder


def controlnet(source: Path, folder: Path, seed: int = 0) -> ControlNetModel:
    """A ControlNet for the U-Net in `source` whose residuals are not zero, saved in `folder`."""
    if not folder.exists():
        torch.manual_seed(seed)
        base = UNet2DConditionModel.from_pretrained(source / "unet")
        made = ControlNetModel.from_unet(base, conditioning_embedding_out_channels=(8, 8, 16, 16))
        for name, weight in made.named_parameters():
            if name.startswith(("controlnet_down", "controlnet_mid", "controlnet_cond_embedding")):
                torch.nn.init.normal_(weight, std=0.2)  # the last ones begin at zero
        made.save_pretrained(folder)
    return ControlNetModel.from_pretrained(folder).eval()


def controlled(cache: Path, models: dict[str, Path], backend: str = "onnxruntime") -> tuple[Path, Path, Bundle]:
    """The small checkpoint, its ControlNet, and a bundle of the U-Net and the ControlNet."""
    with FileLock(cache / "controlled.lock"):
        model = checkpoint(models["sd2"], cache / "controlled", levels=2)
        net = cache / "controlled-controlnet"
        controlnet(model, net)
    return model, net, build(cache, model, backend, ("unet", "controlnet"), controlnet=[str(net)])


def filling(cache: Path, models: dict[str, Path]) -> tuple[Path, Bundle]:
    """A checkpoint that fills in masks and was distilled as LCMs are, and a bundle of its U-Net."""
    with FileLock(cache / "filling.lock"):
        model = checkpoint(models["sd2"], cache / "filling", in_channels=9, time_cond_proj_dim=16)
    return model, build(cache, model, "onnxruntime", ("unet",))


def build(cache: Path, model: Path, backend: str, components: tuple[str, ...] | None, **settings: Any) -> Bundle:
    """A bundle of these components, built once for all workers."""
    target = cache / "bundles" / f"{model.name}-{backend}"
    with FileLock(cache / f"{target.name}.lock"), shared_exports.shared(cache / "exports"):
        return builder.build(
            model,
            target,
            backend=backend,
            components=components,
            profiles=[PROFILE],
            profile_runs=1,
            verify_steps=1,
            **settings,
        )
