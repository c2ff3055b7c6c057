"""Pictures for people: a grid of samples with their prompts, and a loss curve."""

import math
import textwrap
from pathlib import Path

import torch
from PIL import Image, ImageDraw

MARGIN_PX = 8
CAPTION_PX = 40
CHART_PX = (900, 480)
FRAME_PX = (70, 40, 880, 440)  # left, top, right, bottom


def grid(pictures: torch.Tensor, captions: list[str], path: Path, columns: int = 8) -> None:
    """Write pictures in rows with a caption under each.

    Args:
        pictures: RGB in 0 to 1, [N, 3, height, width].
        captions: One for each picture; an empty list leaves no room for any.
        path: PNG file.
        columns: Pictures in a row.
    """
    height, width = pictures.shape[-2:]
    cell = (width + MARGIN_PX, height + MARGIN_PX + (CAPTION_PX if captions else 0))
    rows = math.ceil(len(pictures) / columns)
    sheet = Image.new("RGB", (columns * cell[0] + MARGIN_PX, rows * cell[1] + MARGIN_PX), (128, 128, 128))
    draw = ImageDraw.Draw(sheet)
    for k, picture in enumerate((pictures.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()):
        left, top = MARGIN_PX + k % columns * cell[0], MARGIN_PX + k // columns * cell[1]
        sheet.paste(Image.fromarray(picture), (left, top))
        if captions:
            lines = "\n".join(textwrap.wrap(captions[k], width // 6)[:3])
            draw.multiline_text((left, top + height + 2), lines, fill=(255, 255, 255), spacing=1)
    sheet.save(path)


def curve(history: list[tuple[int, float]], title: str, path: Path) -> None:
    """Write a loss curve on a logarithmic scale.

    Args:
        history: (step, mean loss since the entry before), at least one.
        title: Line above the chart.
        path: PNG file.
    """
    left, top, right, bottom = FRAME_PX
    steps = [step for step, _ in history]
    heights = [math.log10(max(loss, 1e-9)) for _, loss in history]
    low, high = min(heights), max(heights) + 1e-6
    sheet = Image.new("RGB", CHART_PX, (255, 255, 255))
    draw = ImageDraw.Draw(sheet)
    draw.text((left, 14), title, fill=(0, 0, 0))
    draw.rectangle(FRAME_PX, outline=(0, 0, 0))

    def place(step: float, height: float) -> tuple[float, float]:
        return left + (right - left) * step / max(1, steps[-1]), bottom - (bottom - top) * (height - low) / (high - low)

    for k in range(5):
        height = low + (high - low) * k / 4
        draw.text((6, place(0, height)[1] - 6), f"{10**height:.3g}", fill=(0, 0, 0))
        draw.line([place(0, height), place(steps[-1], height)], fill=(225, 225, 225))
        draw.text((place(steps[-1] * k / 4, low)[0] - 12, bottom + 8), str(steps[-1] * k // 4), fill=(0, 0, 0))
    draw.text(((left + right) / 2 - 12, bottom + 24), "step", fill=(0, 0, 0))
    draw.line([place(step, height) for step, height in zip(steps, heights, strict=True)], fill=(30, 60, 220), width=2)
    sheet.save(path)
