"""ControlNets that run on engines, one or several, for the stock pipelines."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import ControlNetModel, MultiControlNetModel
from diffusers.models.controlnets.controlnet import ControlNetOutput
from torch import Tensor, nn

from sdtrt.engines import Engine
from sdtrt.pipelines.engine_modules import EngineModule, read_config
from sdtrt.pipelines.nonfinite import NonFiniteDetector


class EngineControlNet(EngineModule):
    """ControlNetModel."""

    def __init__(self, engine: Engine, folder: Path, detector: NonFiniteDetector | None = None) -> None:
        super().__init__({engine.spec.name: engine}, read_config(ControlNetModel, folder), detector)
        # MultiControlNetModel takes its type and device from the first tensor of its modules.
        self.register_buffer("placement", torch.empty(0, dtype=self.dtype, device=self.device), persistent=False)

    # The pipelines distinguish one ControlNet from several by `isinstance(net, ControlNetModel)`. Inheriting would add
    # dozens of methods that act on layers.
    @property  # type: ignore[misc]
    def __class__(self) -> type:
        cls: type = ControlNetModel
        return cls

    def forward(
        self,
        sample: Tensor,
        timestep: Tensor | float,
        encoder_hidden_states: Tensor,
        controlnet_cond: Tensor,
        conditioning_scale: float = 1.0,
        class_labels: Tensor | None = None,
        timestep_cond: Tensor | None = None,
        attention_mask: Tensor | None = None,
        added_cond_kwargs: dict[str, Tensor] | None = None,
        cross_attention_kwargs: dict[str, Any] | None = None,
        guess_mode: bool = False,
        return_dict: bool = True,
    ) -> Any:
        """Compute the residuals that the U-Net adds to its skip connections and middle block.

        Args:
            sample: latents (2B, 4, H/8, W/8).
            timestep: a number, or one per sample.
            encoder_hidden_states: the prompt's embeddings (2B, T, D).
            controlnet_cond: the picture to follow, (2B, 3, H, W) in 0..1.
            conditioning_scale: factor of all residuals.
            added_cond_kwargs: SDXL's `text_embeds` and `time_ids`; what the engine has no input for is not used.
            guess_mode: scale the residuals up with the depth of their block.
            return_dict: return diffusers' output object instead of a tuple.
            class_labels: must be None, as the exported graph has no such input.
            timestep_cond: likewise.
            attention_mask: likewise.
            cross_attention_kwargs: likewise.

        Raises:
            Unsupported: an argument is set that the engine has no input for.
        """
        self._refuse_set(
            {
                "class_labels": class_labels,
                "timestep_cond": timestep_cond,
                "attention_mask": attention_mask,
                "cross_attention_kwargs": cross_attention_kwargs,
            }
        )
        (engine,) = self.engines.values()
        added = added_cond_kwargs or {}
        steps = torch.as_tensor(timestep, dtype=torch.float32, device=sample.device)
        inputs = {
            "sample": sample,
            "timestep": steps.reshape(-1).expand(sample.shape[0]),
            "encoder_hidden_states": encoder_hidden_states,
            "controlnet_cond": controlnet_cond,
            "conditioning_scale": torch.full((1,), conditioning_scale, device=sample.device),
            **{t.name: added[t.name] for t in engine.spec.inputs if t.name in added},
        }
        out = engine(**inputs)
        self._record(engine.spec.name, inputs, out)  # the step is counted by the U-Net
        *down, middle = out.values()
        if guess_mode and not self.config.global_pool_conditions:
            # Without a prompt the deep layers decide: the residuals near the pixels get a tenth.
            *factors, _ = torch.logspace(-1, 0, len(down) + 1).tolist()
            down = [residual * factor for residual, factor in zip(down, factors, strict=True)]
        result = ControlNetOutput(down_block_res_samples=tuple(down), mid_block_res_sample=middle)
        return result if return_dict else (down, middle)


def load(
    engines: Mapping[str, Engine], folders: Mapping[str, Path], detector: NonFiniteDetector | None = None
) -> nn.Module:
    """One ControlNet, or several in the order of the recipe; `folders` hold their configs."""
    nets = [EngineControlNet(engine, folders[name], detector) for name, engine in engines.items()]
    combined: nn.Module = MultiControlNetModel(nets)
    return nets[0] if len(nets) == 1 else combined
