"""What activations take at a size that was not built, as far as it follows from the sizes that a bundle recorded."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping
from typing import Literal

from sdtrt.spec import ShapeProfile
from sdtrt.store import Memory

Bound = Literal["at least", "at most", "about"]


def at_size(memory: Memory | None, sizes: Mapping[str, int]) -> tuple[Bound, float] | None:
    """Bytes of activations at other sizes than were recorded, and how they bound the true ones; None when unknown.

    They grow with the images, and with the pixels at least in proportion: attention grows with their square. So bytes
    per pixel are a convex function of the pixels, which lies above the line through two known points outside of them,
    and below it between them.
    """
    rates = dict(sorted(_per_pixel(memory, sizes.get("T"))))
    pixels, known = sizes["H"] * sizes["W"], list(rates)
    if not known:
        return None
    place = bisect_left(known, pixels)
    low = max(min(place - 1, len(known) - 2), 0)  # the two nearest, or the only one
    one, other = known[low], known[min(low + 1, len(known) - 1)]
    slope = max((rates[other] - rates[one]) / (other - one), 0.0) if other != one else 0.0
    rate = rates[pixels] if pixels in rates else rates[one] + slope * (pixels - one)
    between = known[0] < pixels < known[-1] or (len(known) == 1 and pixels < one)
    bound: Bound = "about" if pixels in rates else "at most" if between else "at least"
    return (bound, rate * pixels * sizes["B"]) if rate > 0 else None


def _per_pixel(memory: Memory | None, tokens: int | None) -> Iterator[tuple[int, float]]:
    """Pixels, and bytes per image and pixel, at recorded sizes with that many tokens."""
    for m in memory.profiles if memory else ():
        for point, count in (("opt", m.activation_opt_bytes), ("max", m.activation_max_bytes)):
            at = ShapeProfile.parse(m.profile).sizes(point)
            if count is not None and at.get("T") == tokens:
                pixels = at["H"] * at["W"]
                yield pixels, count / (pixels * at["B"])
