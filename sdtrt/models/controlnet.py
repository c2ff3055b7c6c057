"""A ControlNet: the U-Net's inputs and a control image in; residuals of the U-Net's skip connections out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdtrt.errors import ModelError
from sdtrt.models.unet import DOWN, MIDDLE, residuals
from sdtrt.shapes.spec import ComponentSpec, TensorSpec

if TYPE_CHECKING:
    from torch import nn

_INPUTS = ("sample", "timestep", "encoder_hidden_states")
_OUTPUTS = ("down_block_res_sample_", "mid_block_res_sample")


def spec(
    name: str, config: Mapping[str, Any], unet: ComponentSpec, latents: int, source: Path | None, own_folder: Path
) -> ComponentSpec:
    """Spec of a ControlNet.

    Args:
        name: of the component, such as "controlnet_2".
        config: its config.json.
        unet: the U-Net that takes its residuals.
        latents: channels of the VAE's latents, for a config without `in_channels`.
        source: as in ComponentSpec.
        own_folder: where it was found, for the error.

    Raises:
        ModelError: when it was trained for another kind of U-Net.
    """
    unet_inputs = {t.name: t for t in unet.inputs}
    scale, dtype = unet.scale, unet.dtype
    outputs = residuals(config, dtype, scale, *_OUTPUTS)
    expected = [t.shape for t in unet.inputs if t.name.startswith((DOWN, MIDDLE))]
    width = unet_inputs["encoder_hidden_states"].shape[2]
    if [t.shape for t in outputs] != expected or config.get("cross_attention_dim", width) != width:
        raise ModelError(
            "this ControlNet is for another kind of U-Net",
            slug="controlnet-other-model",
            received=f"{own_folder}: channels {config['block_out_channels']}, text {config.get('cross_attention_dim')}",
            expected=f"{len(expected)} residuals, the last {expected[-1]}, text {width}",
            hint="use one that was trained for the same base model",
        )
    if config.get("global_pool_conditions"):
        outputs = [TensorSpec(t.name, (*t.shape[:2], 1, 1), dtype) for t in outputs]
    inputs = [unet_inputs[n] for n in _INPUTS]
    inputs[0] = TensorSpec("sample", ("2B", config.get("in_channels", latents), *inputs[0].shape[2:]), dtype)
    channels = config.get("conditioning_channels", 3)
    inputs += [TensorSpec("controlnet_cond", ("2B", channels, "H", "W"), dtype)]
    inputs += [TensorSpec("conditioning_scale", (1,), dtype)]
    if config.get("addition_embed_type"):
        inputs += [unet_inputs[n] for n in ("text_embeds", "time_ids")]
    return ComponentSpec(
        name=name,
        attribute=name,
        inputs=tuple(inputs),
        outputs=tuple(outputs),
        dtype=dtype,
        load=lambda folder: _load(source or folder / name, dtype),
        scale=scale,
        align=unet.align,
        source=source,
    )


def _load(folder: Path, dtype: str) -> nn.Module:
    from diffusers import ControlNetModel

    from sdtrt.models.exportable_modules import ControlNet, from_pretrained

    return ControlNet(from_pretrained(ControlNetModel, folder, dtype))
