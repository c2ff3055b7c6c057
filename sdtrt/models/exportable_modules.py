"""The checkpoint's modules with the plain signatures of their specs: tensors in by keyword, a tuple of tensors out.

Each keeps the original as `inner`; reports show the names of the modules inside without that prefix.
"""

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from sdtrt.errors import ModelError


def from_pretrained(cls: Any, folder: Path, dtype: str) -> Any:
    """Load one part of a checkpoint from safetensors, ready to trace; ModelError when that fails."""
    variant = "fp16" if not list(folder.glob("*model.safetensors*")) and list(folder.glob("*.fp16.*")) else None
    try:
        module = cls.from_pretrained(
            folder, dtype=getattr(torch, dtype), use_safetensors=True, variant=variant, local_files_only=True
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as exc:
        raise ModelError(
            f"the weights of {folder.name} cannot be loaded",
            slug="model-weights",
            received=folder,
            expected="a config.json and .safetensors files (pickled .bin weights are never loaded)",
            hint=str(exc).splitlines()[0],
        ) from exc
    return module.eval().requires_grad_(False)


class ExportableModule(nn.Module):
    """Base of the wrappers; `inner` is the module of diffusers or transformers."""

    def __init__(self, inner: Any) -> None:
        super().__init__()
        self.inner = inner


class TextEncoder(ExportableModule):
    """CLIPTextModel, with or without projection."""

    def forward(self, input_ids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return last hidden state (B, T, D), pooled or projected state (B, P), all hidden states (L+1, B, T, D)."""
        out = self.inner(input_ids, output_hidden_states=True)
        pooled = out.text_embeds if "text_embeds" in out else out.pooler_output
        return out.last_hidden_state, pooled, torch.stack(out.hidden_states)

    def final_norm(self) -> nn.LayerNorm:
        """The norm that diffusers applies to an earlier hidden state when `clip_skip` is given."""
        model = getattr(self.inner, "text_model", self.inner)
        norm: nn.LayerNorm = model.final_layer_norm
        return norm


class UNet(ExportableModule):
    """UNet2DConditionModel; SDXL's conditioning comes as plain inputs, and with `residual_names` each residual too."""

    def __init__(self, inner: Any, residual_names: Sequence[str] = ()) -> None:
        super().__init__(inner)
        if not residual_names:
            return

        def forward(*args: Any, **tensors: Any) -> tuple[Tensor]:
            tensors["residuals"] = [tensors.pop(name) for name in residual_names]
            return UNet.forward(self, *args, **tensors)

        plain = [p for p in inspect.signature(self.forward).parameters.values() if p.name != "residuals"]
        named = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY) for name in residual_names]
        # Exporters read the names of the inputs from the signature; the number of residuals depends on the model.
        vars(forward)["__signature__"] = inspect.Signature([*plain, *named])
        vars(self)["forward"] = forward

    def forward(
        self,
        sample: Tensor,
        timestep: Tensor,
        encoder_hidden_states: Tensor,
        text_embeds: Tensor | None = None,
        time_ids: Tensor | None = None,
        timestep_cond: Tensor | None = None,
        residuals: Sequence[Tensor] = (),
    ) -> tuple[Tensor]:
        """Predict the noise or velocity.

        Args:
            sample: noisy latents (2B, C, H/8, W/8).
            timestep: (2B,), float32.
            encoder_hidden_states: of the prompt (2B, T, D).
            text_embeds: SDXL's pooled prompt (2B, P).
            time_ids: SDXL's sizes and crop (2B, 6), in the refiner (2B, 5).
            timestep_cond: the guidance embedding of LCM models (2B, E).
            residuals: of a ControlNet, that of the middle block last.

        Returns:
            The prediction (2B, C, H/8, W/8).
        """
        out = self.inner(
            sample,
            timestep,
            encoder_hidden_states,
            timestep_cond=timestep_cond,
            added_cond_kwargs=_added(text_embeds, time_ids),
            down_block_additional_residuals=tuple(residuals[:-1]) if residuals else None,
            mid_block_additional_residual=residuals[-1] if residuals else None,
            return_dict=False,
        )
        return (out[0],)


class ControlNet(ExportableModule):
    """ControlNetModel; its conditioning scale is an input."""

    def forward(
        self,
        sample: Tensor,
        timestep: Tensor,
        encoder_hidden_states: Tensor,
        controlnet_cond: Tensor,
        conditioning_scale: Tensor,
        text_embeds: Tensor | None = None,
        time_ids: Tensor | None = None,
    ) -> tuple[Tensor, ...]:
        """Compute what the U-Net adds to its skip connections.

        Args:
            sample: noisy latents (2B, C, H/8, W/8).
            timestep: (2B,), float32.
            encoder_hidden_states: of the prompt (2B, T, D).
            controlnet_cond: the control image (2B, 3, H, W).
            conditioning_scale: (1,).
            text_embeds: SDXL's pooled prompt (2B, P).
            time_ids: SDXL's sizes and crop (2B, 6).

        Returns:
            The residuals of all skip connections and, last, of the middle block.
        """
        down, middle = self.inner(
            sample,
            timestep,
            encoder_hidden_states,
            controlnet_cond,
            conditioning_scale,
            added_cond_kwargs=_added(text_embeds, time_ids),
            return_dict=False,
        )
        return (*down, middle)


def _added(text_embeds: Tensor | None, time_ids: Tensor | None) -> dict[str, Tensor | None] | None:
    """SDXL's conditioning as diffusers takes it."""
    # It is concatenated with float32 sines: torch promotes, ONNX's Concat takes one type only.
    return None if text_embeds is None else {"text_embeds": text_embeds.float(), "time_ids": time_ids}


class VaeDecoder(ExportableModule):
    """AutoencoderKL.decode."""

    def forward(self, latent_sample: Tensor) -> tuple[Tensor]:
        """Return the image (B, 3, H, W), about -1 to 1."""
        return (self.inner.decode(latent_sample, return_dict=False)[0],)


class VaeEncoder(ExportableModule):
    """AutoencoderKL.encode, up to the distribution's parameters."""

    def forward(self, image: Tensor) -> tuple[Tensor]:
        """Return mean and log-variance, concatenated (B, 2C, H/8, W/8)."""
        return (self.inner.encode(image, return_dict=False)[0].parameters,)
