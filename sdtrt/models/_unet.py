"""The U-Net: noisy latents, timestep and conditioning in; predicted noise (or velocity) out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

from sdtrt.spec import ComponentSpec, TensorSpec


def spec(
    config: Mapping[str, Any], dtype: str, scale: int, conditioning: Mapping[str, int], context: int
) -> ComponentSpec:
    """Spec of the U-Net; `scale` is pixels per latent, `context` the width of the joined text encoders.

    The timestep is a float32 vector: one per sample, fractional for schedulers that need it, exact in half precision
    graphs too.
    """
    width = config.get("cross_attention_dim") or context
    latent = ("2B", config["in_channels"], f"H/{scale}", f"W/{scale}")
    inputs = [
        TensorSpec("sample", latent, dtype),
        TensorSpec("timestep", ("2B",), "float32"),
        TensorSpec("encoder_hidden_states", ("2B", "T", width), dtype),
    ]
    inputs += [TensorSpec(n, ("2B", w), dtype) for n, w in conditioning.items()]
    if config.get("time_cond_proj_dim"):  # guidance embedded by distillation (LCM)
        inputs.append(TensorSpec("timestep_cond", ("2B", config["time_cond_proj_dim"]), dtype))
    return ComponentSpec(
        name="unet",
        attribute="unet",
        inputs=tuple(inputs),
        outputs=(TensorSpec("out_sample", ("2B", config["out_channels"], *latent[2:]), dtype),),
        dtype=dtype,
        load=lambda folder: _load(folder / "unet", dtype),
        scale=scale,
        align=int(scale * 2 ** (len(config["block_out_channels"]) - 1)),
    )


def _load(folder: Path, dtype: str) -> nn.Module:
    from diffusers import UNet2DConditionModel

    from sdtrt.models._modules import UNet, from_pretrained

    return UNet(from_pretrained(UNet2DConditionModel, folder, dtype))
