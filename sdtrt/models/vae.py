"""The two halves of the VAE: latents to pixels, and pixels to the moments of latents, from which diffusers samples."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from torch import nn

from sdtrt.shapes.spec import ComponentSpec, TensorSpec


def decoder(config: Mapping[str, Any], dtype: str, scale: int) -> ComponentSpec:
    """Spec of `AutoencoderKL.decode`; `scale` is pixels per latent."""
    return ComponentSpec(
        name="vae_decoder",
        attribute="vae",
        inputs=(TensorSpec("latent_sample", ("B", config["latent_channels"], f"H/{scale}", f"W/{scale}"), dtype),),
        outputs=(TensorSpec("image", ("B", config["out_channels"], "H", "W"), dtype),),
        dtype=dtype,
        load=lambda folder: _load(folder / "vae", dtype, "decoder"),
        scale=scale,
    )


def encoder(config: Mapping[str, Any], dtype: str, scale: int) -> ComponentSpec:
    """Spec of `AutoencoderKL.encode` up to mean and log-variance, twice the latent channels."""
    return ComponentSpec(
        name="vae_encoder",
        attribute="vae",
        inputs=(TensorSpec("image", ("B", config["in_channels"], "H", "W"), dtype),),
        outputs=(TensorSpec("moments", ("B", 2 * config["latent_channels"], f"H/{scale}", f"W/{scale}"), dtype),),
        dtype=dtype,
        load=lambda folder: _load(folder / "vae", dtype, "encoder"),
        scale=scale,
    )


def _load(folder: Path, dtype: str, half: Literal["decoder", "encoder"]) -> nn.Module:
    from diffusers import AutoencoderKL

    from sdtrt.models.exportable_modules import VaeDecoder, VaeEncoder, from_pretrained

    vae = from_pretrained(AutoencoderKL, folder, dtype)
    return VaeDecoder(vae) if half == "decoder" else VaeEncoder(vae)
