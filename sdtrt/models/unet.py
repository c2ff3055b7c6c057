"""The U-Net: noisy latents, timestep and conditioning in; predicted noise (or velocity) out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

from sdtrt.shapes.spec import ComponentSpec, TensorSpec

# Prefixes of the inputs of a U-Net that takes a ControlNet's residuals; diffusers' argument for the skips is a tuple.
DOWN, MIDDLE = "down_block_additional_residual_", "mid_block_additional_residual"


def spec(
    config: Mapping[str, Any],
    dtype: str,
    scale: int,
    conditioning: Mapping[str, int],
    context: int,
    controlled: bool = False,
) -> ComponentSpec:
    """Spec of the U-Net.

    The timestep is a float32 vector: one per sample, fractional for schedulers that need it, exact in half precision
    graphs too.

    Args:
        config: its config.json.
        dtype: of its weights and activations.
        scale: pixels per latent.
        conditioning: widths of SDXL's inputs by name.
        context: width of the concatenated text encoders.
        controlled: whether it takes a ControlNet's residuals.
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
    added = residuals(config, dtype, scale, DOWN, MIDDLE) if controlled else []
    return ComponentSpec(
        name="unet",
        attribute="unet",
        inputs=(*inputs, *added),
        outputs=(TensorSpec("out_sample", ("2B", config["out_channels"], *latent[2:]), dtype),),
        dtype=dtype,
        load=lambda folder: _load(folder / "unet", dtype, [t.name for t in added]),
        scale=scale,
        variant="ControlNet residuals" if controlled else None,
        align=int(scale * 2 ** (len(config["block_out_channels"]) - 1)),
    )


def residuals(config: Mapping[str, Any], dtype: str, scale: int, down: str, middle: str) -> list[TensorSpec]:
    """The residuals of a ControlNet: one for each skip connection, from `conv_in` on, and one for the middle block.

    Args:
        config: of the U-Net or the ControlNet.
        dtype: of the tensors.
        scale: pixels per latent.
        down: the names of the skips' tensors without their numbers.
        middle: the name of the middle block's tensor.
    """
    widths, layers = config["block_out_channels"], config.get("layers_per_block", 2)
    last = len(widths) - 1
    levels = [(widths[0], 0)]  # channels, and how often height and width were halved
    for level, width in enumerate(widths):
        levels += [(width, level)] * (layers if isinstance(layers, int) else layers[level])
        levels += [(width, level + 1)] * (level < last)
    levels.append((widths[-1], last))
    names = [*(f"{down}{i}" for i in range(len(levels) - 1)), middle]
    shapes = [("2B", w, f"H/{scale * 2**level}", f"W/{scale * 2**level}") for w, level in levels]
    return [TensorSpec(n, s, dtype) for n, s in zip(names, shapes, strict=True)]


def _load(folder: Path, dtype: str, residual_names: Sequence[str]) -> nn.Module:
    from diffusers import UNet2DConditionModel

    from sdtrt.models.exportable_modules import UNet, from_pretrained

    return UNet(from_pretrained(UNet2DConditionModel, folder, dtype), residual_names)
