"""What `sdtrt generate` gives a pipeline besides numbers: the prompt, and the pictures that choose its task."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdtrt.errors import ConfigError

if TYPE_CHECKING:
    from PIL.Image import Image

    from sdtrt.pipelines.tasks import Task


def task_of(image: Path | None, mask: Path | None, control: Sequence[Path]) -> Task | None:
    """The task that the files ask for; None leaves it to the bundle."""
    if control and (image or mask):
        raise ConfigError(
            "a ControlNet and a picture to start from are two tasks",
            slug="call",
            received="--control with --image or --mask",
            expected="one of them",
            hint="in Python, from_pipe() of diffusers' ControlNet pipelines for img2img and inpaint takes both",
        )
    if mask and not image:
        raise ConfigError("a mask needs the picture that it covers", slug="call", received="--mask", expected="--image")
    if control:
        return "controlnet"
    return "inpaint" if mask else "img2img" if image else None


def prompt_arguments(pipe: Any, prompt: str, negative: str | None, clip_skip: int | None) -> dict[str, Any]:
    """The prompts as they are, or as embeddings when they are long or weighed."""
    from sdtrt.pipelines import prompt_weighting

    if prompt_weighting.is_plain(pipe, prompt, negative):
        return {"prompt": prompt, "negative_prompt": negative, "clip_skip": clip_skip}
    return prompt_weighting.encode_prompt(pipe, prompt, negative, clip_skip=clip_skip)


def picture_arguments(
    pipe: Any, image: Path | None, mask: Path | None, control: Sequence[Path], size: tuple[int, int]
) -> dict[str, Any]:
    """The pictures at `size` (width, height); ConfigError when the task needs one that is missing."""
    import inspect

    if control:
        pictures = [_read(path, "RGB", size) for path in control]
        return {"image": pictures if hasattr(pipe.controlnet, "nets") else pictures[0]}
    if image is None and "image" in inspect.signature(pipe.__call__).parameters:
        raise ConfigError(
            "this bundle fills in masks",
            slug="call",
            received="no picture",
            expected="--image FILE --mask FILE, white where the picture is to be made anew",
        )
    call = {} if image is None else {"image": _read(image, "RGB", size)}
    return call if mask is None else {**call, "mask_image": _read(mask, "L", size)}


def check_kind(path: Path) -> None:
    """ConfigError unless the file's name says a kind that can be written: before the picture is made."""
    from PIL import Image

    kinds = {suffix for suffix, kind in Image.registered_extensions().items() if kind in Image.SAVE}
    if path.suffix.lower() not in kinds:
        common = [suffix for suffix in (".png", ".jpg", ".webp", ".tiff") if suffix in kinds]
        raise ConfigError(
            "no such kind of picture",
            slug="picture-kind",
            received=path,
            expected=f"a name that ends in {', '.join(common)} or another of {len(kinds)} kinds",
        )


def _read(path: Path, mode: str, size: tuple[int, int]) -> Image:
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with Image.open(path) as opened:
            return ImageOps.exif_transpose(opened).convert(mode).resize(size, Image.Resampling.LANCZOS)
    except (OSError, UnidentifiedImageError) as exc:
        why = (isinstance(exc, OSError) and exc.strerror) or str(exc)
        raise ConfigError(f"the picture cannot be read: {why}", slug="picture", received=path) from exc
