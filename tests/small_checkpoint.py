"""A checkpoint whose U-Net exports in a few seconds: two levels, and one block with attention on the way down."""

from __future__ import annotations

import shutil
from pathlib import Path

ATTENTIONS = 2  # a self- and a cross-attention


def make(source: Path, folder: Path) -> Path:
    """Copy the checkpoint in `source`, of width 32, with another U-Net."""
    if not folder.exists():
        import torch
        from diffusers import UNet2DConditionModel

        torch.manual_seed(0)
        shutil.copytree(source, folder)
        shutil.rmtree(folder / "unet")
        UNet2DConditionModel(
            sample_size=16,
            block_out_channels=(32, 32),
            layers_per_block=1,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            mid_block_type="UNetMidBlock2D",
            up_block_types=("UpBlock2D", "UpBlock2D"),
            cross_attention_dim=32,
            attention_head_dim=4,
            norm_num_groups=16,
            use_linear_projection=True,
        ).save_pretrained(folder / "unet")
    return folder
