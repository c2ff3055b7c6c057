"""The embedded tiny model: a small trained pipeline that draws colored shapes, and a grid of its images.

It is a checkpoint in `data/tiny-sd` with a card on its training; no other module treats it specially.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sdtrt.system import files

if TYPE_CHECKING:
    from PIL.Image import Image

MODEL = Path(__file__).parent / "data" / "tiny-sd"
PROMPTS = (
    "a red circle on a blue background",
    "a yellow star on a purple background",
    "a pink heart on white",
    "a white ring on an orange background",
    "a small green diamond on a black background",
    "a cyan square, red background",
    "a picture of a black triangle on a yellow background",
    "a green background with an orange cross",
)


def copy(folder: Path) -> Path:
    """Copy the model to `folder`, unless one is there, and return the folder."""
    if not (folder / "model_index.json").is_file():
        work = folder.with_name(f".{folder.name}.tmp")
        shutil.rmtree(work, ignore_errors=True)
        shutil.copytree(MODEL, work)
        files.replace_folder(work, folder)
    return folder


def grid(images: Sequence[Image], prompts: Sequence[str], columns: int = 4) -> Image:
    """The images in rows, each above its prompt, on gray, which suits light and dark pages."""
    from PIL import Image as Images
    from PIL import ImageDraw

    (width, height), gap, text = images[0].size, 12, 34
    rows = -(-len(images) // columns)
    size = (columns * (width + gap) + gap, rows * (height + text + gap) + gap)
    sheet = Images.new("RGB", size, "#808080")
    pen = ImageDraw.Draw(sheet)
    for index, (image, prompt) in enumerate(zip(images, prompts, strict=True)):
        left, top = gap + index % columns * (width + gap), gap + index // columns * (height + text + gap)
        sheet.paste(image, (left, top))
        words, lines = prompt.split(), [""]
        for word in words:
            fits = pen.textlength(f"{lines[-1]} {word}") <= width
            lines = [*lines[:-1], f"{lines[-1]} {word}".strip()] if fits else [*lines, word]
        pen.multiline_text((left, top + height + 3), "\n".join(lines), fill="white", spacing=1)
    return sheet
