"""Does a picture show the shape, the color and the background that the prompt names? Measured without a model.

The background is the median color along the picture's border, the object the largest connected region that is
nearer to its own color than to the background's; its color is the nearest of the palette, and its shape the one
whose ideal outline, scaled to the region's bounding box, overlaps it most.
"""

import argparse
import collections
import dataclasses
import functools
import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import tiny_scenes
import torch
from numpy.typing import NDArray
from scipy import ndimage

Floats = NDArray[np.float64]
BORDER_PX = 4
OUTLINE_PX = 48
# Well under half the least distance between two colors of the palette, in RGB of 0 to 1.
DIFFERENT = 0.18
SMALLEST_PX = 40


@dataclasses.dataclass(frozen=True)
class Seen:
    """What the analysis finds in a picture; color and shape are empty where nothing stands out."""

    color: str
    shape: str
    background: str


def _nearest_color(rgb: Floats) -> str:
    palette = np.array(list(tiny_scenes.PALETTE.values())) / 255.0
    return tiny_scenes.COLORS[int(np.square(palette - rgb).sum(1).argmin())]


def _largest(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    labels, count = ndimage.label(mask)
    if not count:
        return mask
    areas = np.bincount(labels.ravel())[1:]
    return np.asarray(labels == 1 + int(areas.argmax()))


def _outline(mask: NDArray[np.bool_]) -> Floats:
    """Scale what the mask's bounding box holds to a square of OUTLINE_PX."""
    box = mask[ndimage.find_objects(mask.astype(np.int8))[0]].astype(np.float64)
    rows, columns = ((np.arange(OUTLINE_PX) + 0.5) * side / OUTLINE_PX - 0.5 for side in box.shape)
    grid = np.meshgrid(rows, columns, indexing="ij")
    return np.asarray(ndimage.map_coordinates(box, grid, order=1, mode="nearest"))


@functools.cache
def _ideal_outlines() -> dict[str, Floats]:
    count = len(tiny_scenes.SHAPES)
    index = torch.arange(count)
    scenes = tiny_scenes.Scenes(
        two=torch.zeros(count, dtype=torch.bool),
        color=torch.full((count, 2), tiny_scenes.COLORS.index("white")),
        shape=index[:, None].expand(-1, 2),
        center_px=torch.full((count, 2, 2), tiny_scenes.IMAGE_PX / 2),
        radius_px=torch.full((count, 2), 48.0),
        background=torch.full((count,), tiny_scenes.COLORS.index("black")),
        size=torch.zeros_like(index),
        relation=torch.zeros_like(index),
    )
    masks = tiny_scenes.render(scenes)[:, 0].numpy() > 0.5
    return {name: _outline(mask) for name, mask in zip(tiny_scenes.SHAPES, masks, strict=True)}


def analyze(picture: Floats) -> Seen:
    """Find color, shape and background of a single-object picture.

    Args:
        picture: RGB in 0 to 1, [height, width, 3].
    """
    inner = np.ones(picture.shape[:2], dtype=bool)
    inner[BORDER_PX:-BORDER_PX, BORDER_PX:-BORDER_PX] = False
    back = np.median(picture[inner], axis=0)
    background = _nearest_color(back)

    rough = _largest(np.linalg.norm(picture - back, axis=-1) > DIFFERENT)
    if int(rough.sum()) < SMALLEST_PX:
        return Seen("", "", background)
    core = ndimage.binary_erosion(rough, iterations=2)
    front = np.median(picture[core if core.any() else rough], axis=0)
    # Halfway between the two colors is where an anti-aliased or blurred edge truly lies.
    towards = front - back
    mask = _largest((picture - back) @ towards > 0.5 * float(towards @ towards))
    if int(mask.sum()) < SMALLEST_PX:
        return Seen(_nearest_color(front), "", background)
    outline = _outline(mask)
    overlap = {
        name: float(np.minimum(outline, ideal).sum() / np.maximum(outline, ideal).sum())
        for name, ideal in _ideal_outlines().items()
    }
    return Seen(_nearest_color(front), max(overlap, key=lambda name: overlap[name]), background)


def _pictures(images: Iterable[Any]) -> list[Floats]:
    """Bring PIL images, arrays in 0 to 1 or arrays in 0 to 255 to floats in 0 to 1."""
    arrays = [np.asarray(image) for image in images]
    return [a.astype(np.float64) / (255.0 if a.dtype == np.uint8 else 1.0) for a in arrays]


def tally(prompts: list[tiny_scenes.Prompt], pictures: Iterable[Floats]) -> dict[str, Any]:
    """Compare pictures with their prompts: fractions right, and a list of what was taken for what.

    Args:
        prompts: What each picture should show.
        pictures: RGB in 0 to 1, [height, width, 3] each, in the order of the prompts.
    """
    right: collections.Counter[str] = collections.Counter()
    confused: collections.Counter[tuple[str, str, str]] = collections.Counter()
    wrong: list[dict[str, str]] = []
    for prompt, picture in zip(prompts, pictures, strict=True):
        seen = analyze(picture)
        misses = [key for key in ("color", "background", "shape") if getattr(seen, key) != getattr(prompt, key)]
        right.update({"color", "background", "shape"} - set(misses))
        right.update(["all"] if not misses else [])
        confused.update((key, getattr(prompt, key), getattr(seen, key)) for key in misses)
        if misses:
            wrong.append({"prompt": prompt.text} | {key: getattr(seen, key) for key in misses})
    fractions = {key: right[key] / max(1, len(prompts)) for key in ("color", "background", "shape", "all")}
    confusion = [{"what": w, "asked": a, "seen": s, "count": n} for (w, a, s), n in confused.most_common()]
    return {"count": len(prompts), **fractions, "confusion": confusion, "wrong": wrong}


def score(
    pipe: Callable[..., Any],
    count: int = 200,
    steps: int = 20,
    seed: int = 0,
    batch: int = 10,
    guidance_scale: float = 7.5,
) -> dict[str, Any]:
    """Generate the evaluation's pictures, one seed for each prompt, and tally them.

    Args:
        pipe: Called as a diffusers text-to-image pipeline is; answers with an object that has `images`.
        count: Prompts.
        steps: Denoising steps.
        seed: The first prompt's seed; the n-th prompt takes seed + n, whatever the batch.
        batch: Prompts in a call.
        guidance_scale: Weight of classifier-free guidance.
    """
    prompts = tiny_scenes.evaluation_prompts(count)
    pictures: list[Floats] = []
    for start in range(0, count, batch):
        some = prompts[start : start + batch]
        answer = pipe(
            prompt=[prompt.text for prompt in some],
            num_inference_steps=steps,
            guidance_scale=guidance_scale,
            generator=[torch.Generator().manual_seed(seed + start + k) for k in range(len(some))],
            output_type="np",
        )
        pictures += _pictures(answer.images)
    return {"steps": steps, "seed": seed, "guidance_scale": guidance_scale, **tally(prompts, pictures)}


def main(arguments: list[str] | None = None) -> int:
    """Score a pipeline folder and write the report as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", type=Path, help="pipeline in diffusers' layout")
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch", type=int, default=10)
    parser.add_argument("--guidance-scale", type=float, nargs="+", default=[7.5])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--half", action="store_true", help="run in float16 instead of float32")
    parser.add_argument("--report", type=Path, help="write the full report here")
    options = parser.parse_args(arguments)

    from diffusers import StableDiffusionPipeline

    dtype = torch.float16 if options.half else torch.float32
    pipe = StableDiffusionPipeline.from_pretrained(options.folder, dtype=dtype, local_files_only=True)
    pipe = pipe.to(options.device)
    pipe.set_progress_bar_config(disable=True)
    reports = []
    for guidance in options.guidance_scale:
        report = score(pipe, options.count, options.steps, options.seed, options.batch, guidance)
        reports.append(report)
        shown = {key: value for key, value in report.items() if key not in ("confusion", "wrong")}
        sys.stdout.write(json.dumps(shown) + "\n")
        for row in report["confusion"][:12]:
            sys.stdout.write(f"  {row['what']}: {row['asked']} taken for {row['seen'] or 'nothing'} x{row['count']}\n")
    if options.report:
        options.report.write_text(json.dumps(reports, indent=1), encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
