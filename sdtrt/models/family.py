"""ModelFamily: the components of one kind of pipeline, derived from the configs that lie in the checkpoint."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdtrt.errors import ModelError
from sdtrt.models import controlnet, text_encoder, unet, vae
from sdtrt.shapes.spec import ComponentSpec, ShapeProfile

Configs = Mapping[str, Mapping[str, Any]]
# Quantized layers have half precision inputs and outputs.
DTYPES = {"fp32": "float32", "fp16": "float16", "fp8": "float16", "int8": "float16"}


@dataclass(frozen=True)
class ModelFamily:
    """One family.

    Attributes:
        name: its file in `families/`.
        prefix: of its pipelines' class names.
        pipelines: class name by task.
        text_encoders: attributes of the text encoders in diffusers' pipelines.
        conditioning: the inputs that this family adds to the U-Net, as {name: width}, from the configs.
    """

    name: str
    prefix: str
    pipelines: Mapping[str, str]
    text_encoders: tuple[str, ...]
    conditioning: Callable[[Configs], Mapping[str, int]]

    def components(
        self, folder: Path, precision: str, controlnets: Mapping[str, Path] | None = None
    ) -> dict[str, ComponentSpec]:
        """Specs of all components of the checkpoint in `folder`, read from its configs.

        `controlnets` are folders by component name. With them, even with none, the U-Net takes residuals.
        """
        configs = self.configs(folder)
        dtype = DTYPES[precision]
        scale = vae_scale(configs)
        context = sum(int(configs[e]["hidden_size"]) for e in self.text_encoders if e in configs)
        specs = [text_encoder.spec(name, configs[name], dtype) for name in self.text_encoders if name in configs]
        denoiser = unet.spec(
            configs["unet"], dtype, scale, self.conditioning(configs), context, controlnets is not None
        )
        specs.append(denoiser)
        # Some VAEs overflow in half precision; their configs have this flag.
        vae_dtype = "float32" if configs["vae"].get("force_upcast") else dtype
        specs += [vae.decoder(configs["vae"], vae_dtype, scale), vae.encoder(configs["vae"], vae_dtype, scale)]
        for name, path in (controlnets or {}).items():
            config, source = read_json(path / "config.json"), path if path != folder / name else None
            specs.append(controlnet.spec(name, config, denoiser, configs["vae"]["latent_channels"], source, path))
        return {s.name: s for s in specs}

    def own_task(self, folder: Path) -> str:
        """The task that the checkpoint in `folder` was trained for: "txt2img" or "inpaint"."""
        configs = self.configs(folder)
        # The U-Net of an inpainting checkpoint also takes the masked image's latents and the mask.
        inpaints = configs["unet"]["in_channels"] == 2 * configs["vae"]["latent_channels"] + 1
        return "inpaint" if inpaints else "txt2img"

    def configs(self, folder: Path) -> dict[str, dict[str, Any]]:
        """The config.json of every part that the checkpoint has; ModelError when one is missing."""
        index = read_json(folder / "model_index.json")
        present = [n for n in (*self.text_encoders, "unet", "vae") if index.get(n, [None])[0] is not None]
        return {name: read_json(folder / name / "config.json") for name in present}

    def default_profile(self, folder: Path) -> ShapeProfile:
        """One to four images, from half to one and a half times the size of the model's training."""
        configs = self.configs(folder)
        sample = configs["unet"]["sample_size"]
        native = int(max(sample) if isinstance(sample, list) else sample) * vae_scale(configs)
        tokens = next(int(configs[e]["max_position_embeddings"]) for e in self.text_encoders if e in configs)
        step = vae_scale(configs) * 2 ** (len(configs["unet"]["block_out_channels"]) - 1)
        low, high = (max(step, round(native * f / step) * step) for f in (0.5, 1.5))
        size = (min(low, native), native, max(high, native))
        return ShapeProfile({"B": (1, 1, 4), "H": size, "W": size, "T": (tokens, tokens, tokens)})


def vae_scale(configs: Configs) -> int:
    """Pixels per latent: the VAE halves the size after each of its blocks but the last."""
    return int(2 ** (len(configs["vae"]["block_out_channels"]) - 1))


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a checkpoint; ModelError when it is missing or damaged."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as exc:
        raise ModelError(
            f"a file of the checkpoint cannot be read: {exc.strerror}",
            slug="model-missing",
            received=path,
            expected="a folder in diffusers' layout, with model_index.json and a config.json per part",
        ) from exc
    except (UnicodeDecodeError, json.JSONDecodeError) as exc:
        raise ModelError("a file of the checkpoint is not JSON", received=path, expected=str(exc)) from exc
    if not isinstance(data, dict):
        raise ModelError("a file of the checkpoint is not a JSON object", received=path)
    return data
