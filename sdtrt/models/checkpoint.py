"""Sources of checkpoints: a local diffusers folder, a hub id, or a single-file checkpoint. Never a pickle."""

import hashlib
import json
from collections.abc import Sequence
from math import prod
from pathlib import Path

from sdtrt.errors import ModelError
from sdtrt.system.files import replace_folder, sha256
from sdtrt.system.repo_id import is_repo_id


def resolve(model: str, revision: str | None = None, variant: str | None = None) -> Path:
    """A local folder in diffusers' layout for `model`, downloaded or converted when necessary; else ModelError."""
    path = Path(model).expanduser()
    if path.is_dir():
        if not (path / "model_index.json").is_file():
            raise ModelError(
                "the folder is not a diffusers pipeline",
                slug="model-missing",
                received=path,
                expected="a model_index.json in it",
                hint="save one with pipe.save_pretrained(folder)",
            )
        return path
    if path.is_file() or path.suffix in {".safetensors", ".ckpt", ".pt", ".bin"}:
        return _single_file(path)
    if not is_repo_id(model):
        raise ModelError(
            "there is no such model",
            slug="model-missing",
            received=model,
            expected="a local diffusers folder, a .safetensors checkpoint, or a hub id like owner/name",
        )
    return _folder(model, revision, variant)


def controlnets(models: Sequence[str] | None) -> dict[str, Path] | None:
    """Folders of ControlNets by component name ("controlnet", "controlnet_2", ...), downloaded when necessary.

    None stays None: a U-Net that takes no residuals. ModelError for a folder or hub id that is no ControlNet.
    """
    return None if models is None else {name: _controlnet(model) for name, model in controlnet_names(models).items()}


def controlnet_names(models: Sequence[str]) -> dict[str, str]:
    """ControlNets by component name: "controlnet", "controlnet_2", ..."""
    return {f"controlnet_{i + 1}" if i else "controlnet": model for i, model in enumerate(models)}


def _controlnet(model: str) -> Path:
    folder = _folder(model)
    config = folder / "config.json"
    kind = json.loads(config.read_text(encoding="utf-8")).get("_class_name") if config.is_file() else None
    if kind != "ControlNetModel":
        raise ModelError(
            "this is not a ControlNet",
            slug="controlnet-missing",
            received=model if kind is None else f"{model}, a {kind}",
            expected="a hub id or a folder in diffusers' layout, whose config.json says ControlNetModel",
        )
    return folder


def find_local(model: str, revision: str | None = None, variant: str | None = None) -> Path | None:
    """The folder of `model` if a complete one is on this machine; nothing is downloaded or converted."""
    path = Path(model).expanduser()
    try:
        folder = _converted(path) if path.is_file() else _folder(model, revision, variant, local_files_only=True)
        index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
    except (ModelError, OSError, ValueError):
        return None
    parts = [folder / name for name in ("unet", "vae") if name in index]
    return folder if all(any(part.glob("*.safetensors")) for part in parts) else None


def find_local_controlnet(model: str) -> Path | None:
    """The folder of a ControlNet if its weights are on this machine; nothing is downloaded."""
    try:
        folder = _folder(model, local_files_only=True)
    except ModelError:
        return None
    return folder if any(folder.glob("*.safetensors")) else None


def weights_digest(folder: Path, part: str) -> str:
    """Digest of one part's weights and config, which identifies what an engine is built from."""
    files = sorted(p for p in (folder / part).iterdir() if p.suffix in {".safetensors", ".json"})
    text = "".join(f"{p.name} {sha256(p.resolve())}\n" for p in files)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _folder(
    model: str, revision: str | None = None, variant: str | None = None, local_files_only: bool = False
) -> Path:
    """The folder `model`, downloaded when it is a hub id instead."""
    path = Path(model).expanduser()
    if path.is_dir() or not is_repo_id(model):
        return path
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    weights = f"*.{variant}.safetensors" if variant else "*.safetensors"
    try:
        folder = snapshot_download(
            model, revision=revision, allow_patterns=["*.json", "*.txt", weights], local_files_only=local_files_only
        )
        return Path(folder)
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as exc:
        raise ModelError(
            "the model cannot be fetched from the hub",
            slug="model-hub",
            received=model if revision is None else f"{model} at {revision}",
            expected="an existing hub id, or a local folder",
            hint=f"check the name and the network ({str(exc).splitlines()[0]})",
        ) from exc


def _converted(path: Path) -> Path:
    """The folder of a converted single-file checkpoint."""
    return path.with_name(f"{path.stem}.diffusers")


def _single_file(path: Path) -> Path:
    """The checkpoint in diffusers' layout, in a folder next to it; diffusers' own loader converts it the first time."""
    if path.suffix != ".safetensors":
        raise ModelError(
            "only safetensors checkpoints are loaded: any other file may run code when it is opened",
            slug="model-pickle",
            received=path,
            expected="a .safetensors file or a diffusers folder",
            hint="convert it where you trust it, with safetensors.torch.save_file",
        )
    if not path.is_file():
        raise ModelError("there is no such checkpoint", slug="model-missing", received=path)
    folder = _converted(path)
    if (folder / "model_index.json").is_file():
        return folder
    from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            xl = any(key.startswith("conditioner.") for key in file.keys())  # noqa: SIM118 (not a dict)
        if xl:
            pipe = StableDiffusionXLPipeline.from_single_file(str(path))
        else:
            pipe = StableDiffusionPipeline.from_single_file(str(path), safety_checker=None)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as exc:
        raise ModelError(
            "diffusers cannot read this checkpoint",
            slug="model-single-file",
            received=path,
            expected="a Stable Diffusion 1.x, 2.x or XL checkpoint; its configs come from the hub or its cache",
            hint=str(exc).splitlines()[0] if str(exc) else type(exc).__name__,
        ) from exc
    work = folder.with_name(f".{folder.name}.tmp")
    pipe.save_pretrained(work)
    replace_folder(work, folder)
    return folder


def parameter_count(folder: Path) -> int:
    """Parameters of one part, from the headers of its safetensors files; none of the weights are read."""
    from safetensors import safe_open

    total = 0
    for path in {p.name.replace(".fp16", ""): p for p in folder.glob("*.safetensors")}.values():  # one variant counts
        with safe_open(path, "pt") as file:
            total += sum(prod(file.get_slice(key).get_shape()) for key in file.keys())  # noqa: SIM118 (not a dict)
    return total
