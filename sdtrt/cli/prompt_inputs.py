"""Pipeline inputs of `sdtrt generate` that are not numbers: prompts and images, and the task that follows from them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdtrt.errors import ConfigError

if TYPE_CHECKING:
    from PIL.Image import Image

    from sdtrt.pipelines.tasks import Task


def select_task(image: Path | None, mask: Path | None, control: Sequence[Path]) -> Task | None:
    """The task that these images are inputs of; None without images: the bundle's own."""
    if control and (image or mask):
        raise ConfigError(
            "a ControlNet and an initial image are inputs of two tasks",
            slug="call",
            received="--control with --image or --mask",
            expected="one of them",
            hint="in Python, from_pipe() of diffusers' ControlNet pipelines for img2img and inpaint takes both",
        )
    if mask and not image:
        raise ConfigError("a mask needs the image that it covers", slug="call", received="--mask", expected="--image")
    if control:
        return "controlnet"
    return "inpaint" if mask else "img2img" if image else None


def prompt_arguments(pipe: Any, prompt: str, negative: str | None, clip_skip: int | None) -> dict[str, Any]:
    """Arguments of the pipeline's call: prompts as text, or as embeddings for long or weighted prompts.

    Args:
        pipe: Pipeline whose tokenizers and text encoders are used.
        prompt: Prompt; (word:1.2) gives a weight.
        negative: Negative prompt.
        clip_skip: Layers of the text encoder that are skipped.
    """
    from sdtrt.pipelines import prompt_weighting

    if prompt_weighting.is_plain(pipe, prompt, negative):
        return {"prompt": prompt, "negative_prompt": negative, "clip_skip": clip_skip}
    return prompt_weighting.encode_prompt(pipe, prompt, negative, clip_skip=clip_skip)


def image_arguments(
    pipe: Any, image: Path | None, mask: Path | None, control: Sequence[Path], size: tuple[int, int]
) -> dict[str, Any]:
    """Arguments of the pipeline's call: the images that its task needs.

    Args:
        pipe: Pipeline; its signature says whether it needs an image.
        image: Initial image of img2img and inpainting.
        mask: Mask of inpainting.
        control: ControlNet images, one for each ControlNet of the bundle.
        size: (width, height) in pixels that all images are resized to.

    Raises:
        ConfigError: The pipeline needs an image, or a file cannot be read.
    """
    import inspect

    if control:
        images = [_read(path, "RGB", size) for path in control]
        return {"image": images if hasattr(pipe.controlnet, "nets") else images[0]}
    if image is None and "image" in inspect.signature(pipe.__call__).parameters:
        raise ConfigError(
            "this bundle is for inpainting",
            slug="call",
            received="no image",
            expected="--image FILE --mask FILE, the mask white where the image is repainted",
        )
    call = {} if image is None else {"image": _read(image, "RGB", size)}
    return call if mask is None else {**call, "mask_image": _read(mask, "L", size)}


def check_image_format(path: Path) -> None:
    """Raise ConfigError for a suffix that Pillow cannot write; called before anything slow is done."""
    from PIL import Image

    suffixes = {suffix for suffix, name in Image.registered_extensions().items() if name in Image.SAVE}
    if path.suffix.lower() not in suffixes:
        common = [suffix for suffix in (".png", ".jpg", ".webp", ".tiff") if suffix in suffixes]
        raise ConfigError(
            "no such image format",
            slug="picture-kind",
            received=path,
            expected=f"a name that ends in {', '.join(common)} or another of {len(suffixes)} suffixes",
        )


def _read(path: Path, mode: str, size: tuple[int, int]) -> Image:
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with Image.open(path) as opened:
            return ImageOps.exif_transpose(opened).convert(mode).resize(size, Image.Resampling.LANCZOS)
    except (OSError, UnidentifiedImageError) as exc:
        why = (isinstance(exc, OSError) and exc.strerror) or str(exc)
        raise ConfigError(f"the picture cannot be read: {why}", slug="picture", received=path) from exc
