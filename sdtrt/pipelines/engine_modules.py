"""Modules that run on engines, in place of a pipeline's text encoders, U-Net and VAE.

They keep what pipelines read (`config`, `dtype`, `device`) and the call signatures. What an engine cannot do raises
`Unsupported` with the reason, so that no argument is ignored silently.
"""

import inspect
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.configuration_utils import FrozenDict
from diffusers.models.autoencoders.vae import DecoderOutput, DiagonalGaussianDistribution
from diffusers.models.modeling_outputs import AutoencoderKLOutput
from diffusers.models.unets.unet_2d_condition import UNet2DConditionOutput
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import CLIPTextConfig
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.models.clip.modeling_clip import CLIPTextModelOutput

from sdtrt.engines import Engine
from sdtrt.errors import Unsupported
from sdtrt.models import DOWN, MIDDLE
from sdtrt.pipelines.nonfinite import NonFiniteDetector
from sdtrt.shapes.spec import ComponentSpec

NORM = "final_layer_norm.safetensors"
# Attributes and arguments of the replaced modules that engines do not have.
_REFUSED = {
    "attn_processors": "attention is compiled",
    "down_blocks": "layers are compiled",
    "enable_freeu": "the U-Net's skip connections are compiled",
    "enable_tiling": "tiles need the VAE's layers; build the size you want, or use enable_slicing()",
    "encoder_hid_proj": "the exported U-Net has no image conditioning (IP-Adapter)",
    "fuse_qkv_projections": "attention is compiled",
    "load_lora_adapter": "weights are inside the engine; use load_lora_weights() of the pipeline of sdtrt.load()",
    "set_attention_slice": "attention is compiled; it is not needed for memory",
    "set_attn_processor": "attention is compiled",
}
_REFUSED_ARGUMENTS = {
    "cross_attention_kwargs": "attention is compiled; give LoRA scales to set_adapters()",
    "image_embeds": _REFUSED["encoder_hid_proj"],
    "down_block_additional_residuals": "build the U-Net with --controlnet",
    "mid_block_additional_residual": "build the U-Net with --controlnet",
}


class EngineModule(nn.Module):
    """Base: one or two engines, the config of the module that they replace, their dtype and device.

    `detector` records every call; the modules of a pipeline share one.
    """

    def __init__(self, engines: Mapping[str, Engine], config: Any, detector: NonFiniteDetector | None = None) -> None:
        super().__init__()
        self.detector = detector or NonFiniteDetector()
        self.engines = dict(engines)
        self.config = config
        first = next(iter(self.engines.values()))
        self.dtype: torch.dtype = getattr(torch, first.spec.dtype)
        self.device = first.device

    def to(self, *args: Any, **kwargs: Any) -> Any:
        """Return the module when device and dtype are those of the engine, else raise Unsupported."""
        values = [*args, *kwargs.values()]
        for device in (torch.device(v) for v in values if isinstance(v, str | torch.device)):
            if device.type != self.device.type:
                raise self._refuse(f".to({device})", f"its engine runs on {self.device} and cannot be moved")
        for dtype in (v for v in values if isinstance(v, torch.dtype)):
            # Pipelines move a VAE that overflows to float32 and back: its engine is always float32.
            if dtype != self.dtype and not getattr(self.config, "force_upcast", False):
                raise self._refuse(f".to({dtype})", "precision is part of an engine: rebuild with --precision")
        return self

    def __getattr__(self, name: str) -> Any:
        """Raise Unsupported for what acts on layers, also in pipelines that `from_pipe` makes."""
        if name in _REFUSED:
            raise self._refuse(name, _REFUSED[name])
        return super().__getattr__(name)

    def _apply(self, *args: Any, **kwargs: Any) -> Any:
        raise self._refuse("half(), cuda() and the like", "precision and device are part of an engine")

    def _record(
        self, component: str, inputs: dict[str, Tensor], outputs: dict[str, Tensor], timestep: Tensor | None = None
    ) -> None:
        half, asynchronous = self.dtype == torch.float16, self.device.type != "cpu"
        self.detector.record(component, inputs, outputs, timestep, half=half, asynchronous=asynchronous)

    def _refuse(self, what: str, reason: str) -> Unsupported:
        return Unsupported(f"{type(self).__name__} cannot do {what}: {reason}")

    def _refuse_set(self, arguments: Mapping[str, Any]) -> None:
        """Raise Unsupported when one of these arguments, which the engine has no input for, is set."""
        for name, value in arguments.items():
            if value is not None and not (isinstance(value, Mapping) and not value):
                raise self._refuse(name, _REFUSED_ARGUMENTS.get(name, "the exported graph has no such input"))


class EngineTextEncoder(EngineModule):
    """CLIPTextModel and CLIPTextModelWithProjection."""

    def __init__(
        self, engines: Mapping[str, Engine], folder: Path, norm: Path, detector: NonFiniteDetector | None = None
    ) -> None:
        super().__init__(engines, CLIPTextConfig.from_pretrained(folder), detector)
        layer = nn.LayerNorm(self.config.hidden_size, eps=self.config.layer_norm_eps, dtype=self.dtype)
        if norm.is_file():
            layer.load_state_dict(load_file(norm))
        # `clip_skip` normalizes an earlier hidden state with this layer, outside the encoder.
        self.text_model = nn.Module()
        self.text_model.final_layer_norm = layer.to(self.device).requires_grad_(False)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        output_hidden_states: bool = False,
        return_dict: bool = True,
        **unsupported: Any,
    ) -> Any:
        """Encode prompts; Unsupported for an argument that the engine has no input for, such as a mask.

        Args:
            input_ids: token ids (B, T).
            output_hidden_states: return the hidden states (B, T, D) of all layers too.
            return_dict: return transformers' output object instead of a tuple.
            attention_mask: must be None, as the exported graph has no such input.
            unsupported: likewise.
        """
        self._refuse_set({"attention_mask": attention_mask, **unsupported})
        (engine,) = self.engines.values()
        out = engine(input_ids=input_ids)
        self._record(engine.spec.name, {}, {"last_hidden_state": out["last_hidden_state"]})
        states = out.pop("hidden_states")
        cls = CLIPTextModelOutput if "text_embeds" in out else BaseModelOutputWithPooling
        result = cls(**out, hidden_states=tuple(states) if output_hidden_states else None)
        return result if return_dict else result.to_tuple()


class EngineUNet(EngineModule):
    """UNet2DConditionModel."""

    def __init__(self, engines: Mapping[str, Engine], folder: Path, detector: NonFiniteDetector | None = None) -> None:
        super().__init__(engines, read_config(UNet2DConditionModel, folder), detector)
        if self.config.get("projection_class_embeddings_input_dim"):
            linear = SimpleNamespace(in_features=self.config.projection_class_embeddings_input_dim)
            self.add_embedding = SimpleNamespace(linear_1=linear)

    def forward(
        self,
        sample: Tensor,
        timestep: Tensor | float,
        encoder_hidden_states: Tensor,
        class_labels: Tensor | None = None,
        timestep_cond: Tensor | None = None,
        attention_mask: Tensor | None = None,
        cross_attention_kwargs: dict[str, Any] | None = None,
        added_cond_kwargs: dict[str, Tensor] | None = None,
        down_block_additional_residuals: tuple[Tensor, ...] | None = None,
        mid_block_additional_residual: Tensor | None = None,
        down_intrablock_additional_residuals: tuple[Tensor, ...] | None = None,
        encoder_attention_mask: Tensor | None = None,
        return_dict: bool = True,
    ) -> Any:
        """Predict noise, or velocity; parameters stand in the order of diffusers' module.

        Args:
            sample: latents (2B, C, H/8, W/8); B rows without guidance.
            timestep: a number, or one per sample (2B,).
            encoder_hidden_states: the prompt's embeddings (2B, T, D).
            timestep_cond: LCM's embedding of the guidance scale (2B, E), where the engine has this input.
            added_cond_kwargs: SDXL's `text_embeds` (2B, P) and `time_ids` (2B, 6).
            down_block_additional_residuals: a ControlNet's residuals, where the engine has these inputs.
            mid_block_additional_residual: the residual of the middle block, likewise.
            return_dict: return diffusers' output object instead of a tuple.
            class_labels: must be None, as the exported graph has no such input.
            attention_mask: likewise.
            cross_attention_kwargs: likewise.
            down_intrablock_additional_residuals: likewise.
            encoder_attention_mask: likewise.

        Raises:
            Unsupported: an argument is set that the engine has no input for.
        """
        (engine,) = self.engines.values()
        unsupported: dict[str, Any] = {
            "class_labels": class_labels,
            "attention_mask": attention_mask,
            "cross_attention_kwargs": cross_attention_kwargs,
            "down_intrablock_additional_residuals": down_intrablock_additional_residuals,
            "encoder_attention_mask": encoder_attention_mask,
        }
        graph_inputs = {t.name for t in engine.spec.inputs}
        added = dict(added_cond_kwargs or {})
        residuals = self._residuals(down_block_additional_residuals, mid_block_additional_residual)
        unsupported |= {n: v for n, v in added.items() if n not in graph_inputs}
        if "timestep_cond" not in graph_inputs:
            unsupported["timestep_cond"] = timestep_cond
        if not residuals:
            unsupported["down_block_additional_residuals"] = down_block_additional_residuals
            unsupported["mid_block_additional_residual"] = mid_block_additional_residual
        self._refuse_set(unsupported)
        steps = torch.as_tensor(timestep, dtype=torch.float32, device=sample.device).reshape(-1)
        inputs = {
            "sample": sample,
            "timestep": steps.expand(sample.shape[0]),  # (2B,)
            "encoder_hidden_states": encoder_hidden_states,
            **added,
            **_optional_inputs(engine.spec, sample, timestep_cond, residuals),
        }
        out = engine(**inputs)["out_sample"]
        self._record("unet", inputs, {"out_sample": out}, steps[0])
        return UNet2DConditionOutput(sample=out) if return_dict else (out,)

    def _residuals(self, down: Sequence[Tensor] | None, middle: Tensor | None) -> tuple[Tensor, ...]:
        """A ControlNet's residuals; empty when there are none or the graph has no inputs for them."""
        expected = sum(t.name.startswith((DOWN, MIDDLE)) for t in self.engines["unet"].spec.inputs)
        if not expected or down is None or middle is None:
            return ()
        if len(down) + 1 != expected:
            raise self._refuse(f"{len(down) + 1} residuals", f"a ControlNet for this U-Net gives {expected}")
        return (*down, middle)


class EngineVae(EngineModule):
    """AutoencoderKL: decoder and encoder are two engines, and a bundle may have no encoder."""

    def __init__(self, engines: Mapping[str, Engine], folder: Path, detector: NonFiniteDetector | None = None) -> None:
        super().__init__(engines, read_config(AutoencoderKL, folder), detector)
        self.use_slicing = False

    def enable_slicing(self) -> None:
        """Decode and encode one image at a time."""
        self.use_slicing = True

    def disable_slicing(self) -> None:
        """Decode and encode the whole batch at once."""
        self.use_slicing = False

    def decode(self, z: Tensor, return_dict: bool = True, generator: Any = None) -> Any:
        """Latents (B, 4, H/8, W/8) to images (B, 3, H, W); `generator` is accepted and unused, as in AutoencoderKL."""
        self.detector.finish()
        out = self._call("vae_decoder", "latent_sample", z)
        return DecoderOutput(sample=out) if return_dict else (out,)

    def encode(self, x: Tensor, return_dict: bool = True) -> Any:
        """Images (B, 3, H, W) to a distribution over latents."""
        distribution = DiagonalGaussianDistribution(self._call("vae_encoder", "image", x))
        return AutoencoderKLOutput(latent_dist=distribution) if return_dict else (distribution,)

    def _call(self, name: str, argument: str, tensor: Tensor) -> Tensor:
        if name not in self.engines:
            raise self._refuse(name.removeprefix("vae_"), f"the bundle was built without {name}")
        slices = tensor.split(1) if self.use_slicing else (tensor,)
        outputs = [next(iter(self.engines[name](**{argument: s}).values())) for s in slices]
        result = outputs[0] if len(outputs) == 1 else torch.cat(outputs)
        self._record(name, {argument: tensor}, {"result": result})
        self.detector.check()
        return result


def _optional_inputs(
    spec: ComponentSpec, sample: Tensor, condition: Tensor | None, residuals: Sequence[Tensor]
) -> dict[str, Tensor]:
    """The engine's inputs that the U-Net only adds to a tensor: zeros stand for those that diffusers leaves out."""
    names = [t.name for t in spec.inputs if t.name.startswith((DOWN, MIDDLE))]
    arguments = {"timestep_cond": condition, **dict(zip(names, residuals, strict=False))}
    size = {"H": sample.shape[2] * spec.scale, "W": sample.shape[3] * spec.scale}
    tensors = {}
    for t in (t for t in spec.inputs if t.name.startswith(("timestep_cond", DOWN, MIDDLE))):
        tensor = arguments.get(t.name)
        if tensor is None or tuple(tensor.shape[2:]) == (1, 1):  # some ControlNets pool: one value for all pixels
            tensor = sample.new_zeros(1) if tensor is None else tensor
            tensor = tensor.expand(len(sample), *t.resolve({"B": 1, **size})[1:])
        tensors[t.name] = tensor
    return tensors


def read_config(cls: Any, folder: Path) -> FrozenDict:
    """The saved config over the class's defaults: one saved by an older diffusers lacks keys that pipelines read."""
    parameters = inspect.signature(cls.__init__).parameters.items()
    defaults = {n: p.default for n, p in parameters if p.default is not inspect.Parameter.empty}
    return FrozenDict({**defaults, **json.loads((folder / "config.json").read_text(encoding="utf-8"))})
