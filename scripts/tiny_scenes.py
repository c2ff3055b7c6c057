"""Scenes of colored shapes: sampling, captions and rendering, all batched on one device.

A scene is a plain background with one or two shapes on it. Everything is a tensor operation on a whole batch, so that
a training loop on a GPU draws its own data and never waits: positions are sampled, shapes are drawn from signed
distances with one pixel of anti-aliasing, and captions are filled-in templates, one word one token.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from typing import Any

import torch

IMAGE_PX = 128
PALETTE: dict[str, tuple[int, int, int]] = {
    "red": (220, 25, 30),
    "orange": (250, 125, 0),
    "yellow": (255, 230, 40),
    "green": (20, 150, 50),
    "cyan": (60, 215, 230),
    "blue": (30, 60, 220),
    "purple": (130, 30, 160),
    "pink": (255, 150, 195),
    "white": (250, 250, 250),
    "black": (12, 12, 12),
}
COLORS = tuple(PALETTE)
SHAPES = ("circle", "square", "triangle", "star", "diamond", "cross", "ring", "heart")
RELATIONS = ("left", "right", "above", "below")
SIZE_WORDS = (("small", "little"), ("medium", "medium"), ("big", "large"))
# Half the extent of a single shape in pixels, (least, most), for each of the size words.
SIZES_PX = ((17.0, 22.0), (25.0, 33.0), (37.0, 46.0))
MARGIN_PX = 6.0

# Upper-case words are slots: A article, S size, C color, O shape, R relation, B background; 1 and 2 count the shapes.
TEMPLATES: dict[str, tuple[str, ...]] = {
    "one": (
        "A1 C1 O1 on AB B background",
        "A1 C1 O1 on AB B background",
        "A1 C1 O1 on B",
        "C1 O1 , B background",
        "a picture of A1 C1 O1 on AB B background",
        "AB B background with A1 C1 O1",
        "the O1 is C1 and the background is B",
    ),
    "one_size": (
        "a S1 C1 O1 on AB B background",
        "a S1 C1 O1 on B",
        "S1 C1 O1 , B background",
        "a picture of a S1 C1 O1 on AB B background",
        "AB B background with a S1 C1 O1",
    ),
    "one_any": ("A1 C1 O1", "C1 O1", "a picture of A1 C1 O1"),
    "beside": (
        "A1 C1 O1 R of A2 C2 O2",
        "A1 C1 O1 to the R of A2 C2 O2",
        "A1 C1 O1 R of A2 C2 O2 on AB B background",
        "A1 C1 O1 to the R of A2 C2 O2 on AB B background",
    ),
    "over": (
        "A1 C1 O1 R A2 C2 O2",
        "A1 C1 O1 R A2 C2 O2 on B",
        "A1 C1 O1 R A2 C2 O2 on AB B background",
        "AB B background with A1 C1 O1 R A2 C2 O2",
    ),
    "both": ("A1 C1 O1 and A2 C2 O2", "A1 C1 O1 and A2 C2 O2 on AB B background"),
}
SLOTS = ("A1", "S1", "C1", "O1", "R", "A2", "C2", "O2", "AB", "B")
_FIXED = ("", "a", "an", "on", "background", ",", "picture", "of", "with", "the", "is", "and", "to")
WORDS = (*_FIXED, *COLORS, *SHAPES, *RELATIONS, *(word for pair in SIZE_WORDS for word in dict.fromkeys(pair)))


@dataclasses.dataclass(frozen=True)
class Scenes:
    """A batch of scenes as tensors, N the batch; the second shape counts only where `two` holds."""

    two: torch.Tensor  # [N] bool
    color: torch.Tensor  # [N, 2] index into COLORS
    shape: torch.Tensor  # [N, 2] index into SHAPES
    center_px: torch.Tensor  # [N, 2, 2] x then y
    radius_px: torch.Tensor  # [N, 2]
    background: torch.Tensor  # [N] index into COLORS
    size: torch.Tensor  # [N] index into SIZE_WORDS, of the first shape of a single-shape scene
    relation: torch.Tensor  # [N] index into RELATIONS: where the first shape lies, seen from the second

    def __getitem__(self, index: torch.Tensor) -> Scenes:
        """Select scenes by an index tensor or a mask over N."""
        return Scenes(*(getattr(self, field.name)[index] for field in dataclasses.fields(self)))

    def facts(self, row: int) -> dict[str, Any]:
        """Say in words what one scene shows."""
        count = 2 if bool(self.two[row]) else 1
        shown = [(COLORS[int(self.color[row, k])], SHAPES[int(self.shape[row, k])]) for k in range(count)]
        return {
            "objects": shown,
            "background": COLORS[int(self.background[row])],
            "relation": RELATIONS[int(self.relation[row])] if count == 2 else None,
        }


@dataclasses.dataclass(frozen=True)
class Prompt:
    """One prompt of the evaluation: a single shape on a named background."""

    text: str
    color: str
    shape: str
    background: str


@functools.cache
def _constant(values: tuple[Any, ...], device: torch.device) -> torch.Tensor:
    """Copy constants to the device once: every copy from the host would make it wait."""
    return torch.tensor(values, device=device)


def palette_rgb(device: torch.device) -> torch.Tensor:
    """Give the palette as RGB in 0 to 1: [colors, 3]."""
    return _constant(tuple(PALETTE.values()), device) / 255.0


def _between(least: torch.Tensor, most: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    return least + (most - least) * torch.rand(least.shape, generator=generator, device=least.device)


def sample(batch: int, generator: torch.Generator, two_share: float = 0.35) -> Scenes:
    """Draw scenes at random, on the generator's device.

    Args:
        batch: How many.
        generator: Source of all randomness.
        two_share: Fraction of scenes with two shapes.
    """
    device = generator.device

    def integers(high: int, *shape: int) -> torch.Tensor:
        return torch.randint(high, shape, generator=generator, device=device)

    two = torch.rand(batch, generator=generator, device=device) < two_share
    background = integers(len(COLORS), batch)
    # A step of 1 to 9 round the palette: a shape never has the color that it lies on.
    color = (background[:, None] + 1 + integers(len(COLORS) - 1, batch, 2)) % len(COLORS)
    size, relation = integers(3, batch), integers(4, batch)

    limits_px = _constant(SIZES_PX, device)[size]  # [N, 2]
    single_px = _between(limits_px[:, 0], limits_px[:, 1], generator)
    edge_px = single_px + MARGIN_PX
    single_center = torch.stack([_between(edge_px, IMAGE_PX - edge_px, generator) for _ in range(2)], -1)  # [N, 2]

    still = torch.zeros((batch, 2), device=device)
    radii_px = _between(still + 17.0, still + 25.0, generator)
    gap_px = radii_px.sum(1) + _between(still[:, 0] + 5.0, still[:, 0] + 14.0, generator)
    start_px = _between(radii_px[:, 0] + MARGIN_PX, IMAGE_PX - MARGIN_PX - radii_px[:, 1] - gap_px, generator)
    along = torch.stack([start_px, start_px + gap_px], 1)  # [N, 2], the first shape first
    # right and below mirror left and above: the first shape then lies at the far end.
    along = torch.where((relation % 2 == 1)[:, None], IMAGE_PX - along, along)
    across = IMAGE_PX / 2 + _between(still - 10.0, still + 10.0, generator)
    upright = (relation >= 2)[:, None]
    pair_center = torch.stack([torch.where(upright, across, along), torch.where(upright, along, across)], -1)

    return Scenes(
        two=two,
        color=color,
        shape=integers(len(SHAPES), batch, 2),
        center_px=torch.where(two[:, None, None], pair_center, single_center[:, None]),
        radius_px=torch.where(two[:, None], radii_px, single_px[:, None]),
        background=background,
        size=size,
        relation=relation,
    )


def _signed_distances(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Distances to all shapes at points (x, y) in units of the radius, y down, negative inside: [8, ...]."""
    ax, ay = x.abs(), y.abs()
    length = torch.hypot(x, y)
    square = torch.maximum(ax, ay) - 0.86
    triangle = torch.maximum(y - 0.8, (1.8 * ax - 0.95 * (y + 1.0)) / 2.0353)
    # A five-pointed star is where at least four of the five half-planes along its edges hold: the second largest.
    most = second = torch.full_like(x, -9.0)
    for corner in range(5):
        angle = torch.tensor(torch.pi * (0.5 + 0.4 * corner))
        plane = x * float(angle.cos()) + y * float(angle.sin()) - 0.309
        second = torch.maximum(second, torch.minimum(most, plane))
        most = torch.maximum(most, plane)
    bars = torch.minimum(torch.maximum(ax - 0.32, ay - 0.95), torch.maximum(ax - 0.95, ay - 0.32))
    # A square on its corner with a half circle on each of the two upper edges.
    heart = torch.minimum(((ax + (y - 0.083).abs()) - 0.8) * 0.7071, torch.hypot(ax - 0.4, y + 0.317) - 0.5657)
    ring = (length - 0.74).abs() - 0.24
    return torch.stack([length - 0.96, square, triangle, second, (ax + ay - 1.0) * 0.7071, bars, ring, heart])


def render(scenes: Scenes, colors: torch.Tensor | None = None) -> torch.Tensor:
    """Draw scenes.

    Args:
        scenes: N scenes.
        colors: RGB in 0 to 1 of the background and the two shapes [N, 3, 3] instead of the palette's.

    Returns:
        RGB pictures in 0 to 1, [N, 3, 128, 128].
    """
    device = scenes.center_px.device
    if colors is None:
        colors = palette_rgb(device)[torch.cat([scenes.background[:, None], scenes.color], 1)]
    axis_px = torch.arange(IMAGE_PX, device=device) + 0.5
    picture = colors[:, 0, :, None, None].expand(-1, -1, IMAGE_PX, IMAGE_PX)
    for k in range(2):
        center, radius = scenes.center_px[:, k, :, None, None], scenes.radius_px[:, k, None, None]
        flat = torch.zeros((IMAGE_PX, IMAGE_PX), device=device)
        x, y = (flat + axis_px - center[:, 0]) / radius, (flat + axis_px[:, None] - center[:, 1]) / radius
        index = scenes.shape[None, :, k, None, None].expand(1, -1, IMAGE_PX, IMAGE_PX)
        distance_px = _signed_distances(x, y).gather(0, index)[0] * radius  # [N, 128, 128]
        cover = (0.5 - distance_px).clamp(0, 1)
        if k == 1:
            cover = cover * scenes.two[:, None, None]
        picture = torch.lerp(picture, colors[:, k + 1, :, None, None], cover[:, None])
    return picture


@functools.cache
def _template_table(device: torch.device) -> tuple[torch.Tensor, dict[str, tuple[int, int]]]:
    """All templates as word indices, slots as -1 - slot, padded with the empty word; {group: (first, count)}."""
    rows: list[list[int]] = []
    groups: dict[str, tuple[int, int]] = {}
    for group, texts in TEMPLATES.items():
        groups[group] = (len(rows), len(texts))
        rows += [[-1 - SLOTS.index(w) if w in SLOTS else WORDS.index(w) for w in text.split()] for text in texts]
    width = max(map(len, rows))
    return torch.tensor([row + [0] * (width - len(row)) for row in rows], device=device), groups


def caption_words(scenes: Scenes, generator: torch.Generator) -> torch.Tensor:
    """Word a caption for every scene: indices into WORDS, [N, longest], 0 after the end."""
    device = scenes.two.device
    table, groups = _template_table(device)
    names = list(groups)
    chance = torch.rand((4, len(scenes.two)), generator=generator, device=device)
    of_two = torch.where(scenes.relation < 2, names.index("beside"), names.index("over"))
    of_two = torch.where(chance[0] < 0.15, names.index("both"), of_two)
    of_one = torch.where((chance[1] < 0.4) & (scenes.size != 1), names.index("one_size"), names.index("one"))
    of_one = torch.where(chance[0] < 0.1, names.index("one_any"), of_one)
    group = torch.where(scenes.two, of_two, of_one)
    first, count = (_constant(tuple(groups[name][k] for name in names), device)[group] for k in range(2))
    row = table[first + torch.minimum((chance[2] * count).long(), count - 1)]  # [N, longest]

    def word(names: tuple[str, ...], index: torch.Tensor) -> torch.Tensor:
        return _constant(tuple(WORDS.index(name) for name in names), device)[index]

    def article(index: torch.Tensor) -> torch.Tensor:
        return word(tuple("an" if name[0] in "aeiou" else "a" for name in COLORS), index)

    one, other, back = scenes.color[:, 0], scenes.color[:, 1], scenes.background
    short, long = (word(tuple(pair[k] for pair in SIZE_WORDS), scenes.size) for k in range(2))
    size = torch.where(chance[3] < 0.5, short, long)
    filled = [article(one), size, word(COLORS, one), word(SHAPES, scenes.shape[:, 0])]
    filled += [word(RELATIONS, scenes.relation), article(other), word(COLORS, other)]
    filled += [word(SHAPES, scenes.shape[:, 1]), article(back), word(COLORS, back)]
    values = torch.stack(filled, 1)  # [N, slots]
    return torch.where(row < 0, values.gather(1, (-1 - row).clamp(min=0)), row)


def caption_text(words: torch.Tensor) -> list[str]:
    """Spell captions out: one string per row of word indices."""
    return [" ".join(WORDS[i] for i in row if i).replace(" ,", ",") for row in words.tolist()]


def parse(caption: str) -> dict[str, Any]:
    """Read a caption back: the objects as (color, shape), the background or None, the relation or None."""
    hue, form = "|".join(COLORS), "|".join(SHAPES)
    objects = re.findall(rf"\b({hue}) ({form})\b", caption)
    objects += [(c, s) for s, c in re.findall(rf"\bthe ({form}) is ({hue})\b", caption)]
    ground = re.search(rf"\b({hue}) background|background is ({hue})|\bon ({hue})$", caption)
    relation = re.search(rf"\b({'|'.join(RELATIONS)})\b", caption)
    return {
        "objects": objects,
        "background": next(filter(None, ground.groups())) if ground else None,
        "relation": relation.group() if relation else None,
    }


def evaluation_prompts(count: int = 200, seed: int = 0) -> list[Prompt]:
    """List the evaluation's prompts: shapes, colors and backgrounds balanced, the order and wording from the seed."""
    generator = torch.Generator().manual_seed(seed)
    prompts = []
    for k in range(count):
        color, shape = COLORS[k % len(COLORS)], SHAPES[(k // len(COLORS) + k) % len(SHAPES)]
        step = 1 + (k // len(COLORS)) % (len(COLORS) - 1)
        ground = COLORS[(k + step) % len(COLORS)]
        pick = int(torch.randint(len(TEMPLATES["one"]), (1,), generator=generator))
        slots = {"C1": color, "O1": shape, "B": ground}
        slots |= {a: "an" if slots[c][0] in "aeiou" else "a" for a, c in (("A1", "C1"), ("AB", "B"))}
        text = " ".join(slots.get(word, word) for word in TEMPLATES["one"][pick].split()).replace(" ,", ",")
        prompts.append(Prompt(text, color, shape, ground))
    order = torch.randperm(count, generator=generator).tolist()
    return [prompts[k] for k in order]
