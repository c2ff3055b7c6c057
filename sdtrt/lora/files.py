"""LoRA files: found locally or on the hub, and read under the names of diffusers' modules. Never a pickle."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdtrt import models
from sdtrt.errors import ModelError
from sdtrt.system.repo_id import is_repo_id

if TYPE_CHECKING:
    from torch import Tensor

DEFAULT_NAME = "pytorch_lora_weights.safetensors"
_PICKLES = (".bin", ".ckpt", ".pt", ".pth")
_EXPECTED = 'a .safetensors file, a folder with one, "owner/name" or "owner/name/FILE.safetensors" on the hub'


@dataclass(frozen=True)
class LoraFile:
    """The tensors of a LoRA by "component.module.lora_A.weight"; `alphas` and `metadata` of the trainer scale them."""

    name: str
    state: Mapping[str, Tensor]
    alphas: Mapping[str, float] | None
    metadata: Mapping[str, Any] | None

    @property
    def parts(self) -> tuple[str, ...]:
        """The components of the pipeline that it changes, such as ("text_encoder", "unet")."""
        return tuple(sorted({key.partition(".")[0] for key in self.state}))

    def only(self, part: str) -> LoraFile:
        """The LoRA with the tensors of one component."""
        return replace(self, state={k: v for k, v in self.state.items() if k.startswith(f"{part}.")})


def mixin(xl: bool) -> Any:
    """Diffusers' LoRA loader of SD or SDXL pipelines."""
    from diffusers import loaders

    return loaders.StableDiffusionXLLoraLoaderMixin if xl else loaders.StableDiffusionLoraLoaderMixin


@contextmanager
def quiet() -> Iterator[None]:
    """Suppress peft's warning that a second adapter is loaded."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Already found a `peft_config` attribute")
        yield


def resolve(source: str | os.PathLike[str], weight_name: str | None = None, **hub: Any) -> Path:
    """The file of a LoRA, downloaded from the hub when it is not local; `hub` are arguments of `hf_hub_download`."""
    text = os.fspath(source)
    path = Path(text).expanduser()
    if path.is_dir():
        path = _in_folder(path / (hub.get("subfolder") or ""), weight_name)
    elif not path.is_file():
        path = _from_hub(text, weight_name, hub)
    if path.suffix != ".safetensors":
        raise ModelError(
            "only safetensors LoRAs are loaded: any other file may run code when it is opened",
            slug="lora-pickle",
            received=path,
            expected=_EXPECTED,
            hint="convert it where you trust it, with safetensors.torch.save_file",
        )
    return path


def read(source: Path | Mapping[str, Tensor], folder: Path, xl: bool) -> LoraFile:
    """Read a LoRA in the format of kohya's, diffusers' or peft's tools; `folder` has the configs of the model."""
    from diffusers.configuration_utils import FrozenDict
    from safetensors import SafetensorError

    name = str(source) if isinstance(source, Path) else "the given tensors"
    try:
        keys = tuple(source) if isinstance(source, Mapping) else _keys(source)
        _refuse_dora(name, keys)
        state, alphas, metadata = mixin(xl).lora_state_dict(
            str(source) if isinstance(source, Path) else dict(source),
            unet_config=FrozenDict(models.read_json(folder / "unet" / "config.json")) if xl else None,
            use_safetensors=True,
            local_files_only=True,
            return_lora_metadata=True,
        )
    except (OSError, SafetensorError) as exc:
        raise _unreadable(name, str(exc)) from exc
    except (ValueError, KeyError, IndexError, AttributeError, RuntimeError) as exc:
        # Errors of diffusers' conversion of kohya's names: mostly a LoRA of another kind of model.
        raise _unreadable(name, f"{', '.join(keys[:3])}, ...: {exc}") from exc
    if wrong := [key for key in state if "lora" not in key and "lokr" not in key]:
        raise _unreadable(name, f"{', '.join(wrong[:3])}{', ...' if wrong[3:] else ''}")
    return LoraFile(name, state, alphas, metadata)


def _keys(path: Path) -> tuple[str, ...]:
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        return tuple(file.keys())


def _refuse_dora(name: str, keys: tuple[str, ...]) -> None:
    """Diffusers' loader leaves out the magnitudes of a DoRA, with a warning."""
    if magnitudes := [key for key in keys if "dora_scale" in key]:
        raise ModelError(
            "this is a DoRA, which diffusers cannot load for Stable Diffusion",
            slug="lora-dora",
            received=f"{name} with {magnitudes[0]}",
            expected="a LoRA or LoKr",
            hint="merge it into the checkpoint with the trainer's tool and build that",
        )


def _in_folder(folder: Path, weight_name: str | None) -> Path:
    names = sorted(p.name for p in folder.glob("*.safetensors"))
    name = weight_name or (DEFAULT_NAME if DEFAULT_NAME in names else names[0] if len(names) == 1 else None)
    if name is None or not (folder / name).is_file():
        raise ModelError(
            "the folder does not say which LoRA is meant" if name is None else f"there is no {name} in the folder",
            slug="lora-missing",
            received=f"{folder} with {', '.join(names) or 'no .safetensors file'}",
            expected=_EXPECTED,
            hint="name the file itself",
        )
    return folder / name


def _from_hub(text: str, weight_name: str | None, hub: dict[str, Any]) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    owner, _, rest = text.partition("/")
    name, _, inside = rest.partition("/")
    if not is_repo_id(f"{owner}/{name}") or (not inside and text.endswith((".safetensors", *_PICKLES))):
        raise ModelError("there is no such LoRA", slug="lora-missing", received=text, expected=_EXPECTED)
    try:
        return Path(hf_hub_download(f"{owner}/{name}", weight_name or inside or DEFAULT_NAME, **hub))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as exc:
        raise ModelError(
            "the LoRA cannot be fetched from the hub",
            slug="lora-hub",
            received=text,
            expected=_EXPECTED,
            hint=f"name the file, as owner/name/FILE.safetensors ({str(exc).splitlines()[0]})",
        ) from exc


def _unreadable(name: str, cause: str) -> ModelError:
    return ModelError(
        "this is not a LoRA that diffusers can read",
        slug="lora-unreadable",
        received=f"{name}: {cause}",
        expected="a LoRA for Stable Diffusion 1.x, 2.x or XL, in kohya's, diffusers' or peft's form",
        hint="check that the file is whole and for this kind of model",
    )
