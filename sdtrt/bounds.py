"""What activations take at a size that was not built, as far as it follows from the sizes that a bundle recorded."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping
from typing import Literal

from sdtrt.bundle.manifest import Memory
from sdtrt.shapes.spec import ShapeProfile

Bound = Literal["at least", "at most", "about"]


def at_size(memory: Memory | None, sizes: Mapping[str, int]) -> tuple[Bound, float] | None:
    """Bytes of activations at other sizes than were recorded, and how they bound the true ones; None when unknown.

    They grow with the images. Of each image some do not depend on the pixels, some grow with them, and some, of
    attention that is written out, with their square. So bytes, and bytes per pixel, are convex functions of the pixels,
    which lie above the line through two known points outside of them, and below it between them. From one known
    point they are about in proportion.
    """
    rates = dict(sorted(_per_pixel(memory, sizes.get("T"))))
    pixels, known = sizes["H"] * sizes["W"], list(rates)
    if not known:
        return None
    if pixels in rates or len(known) == 1:
        return _if_any("about", rates.get(pixels, rates[known[0]]) * pixels * sizes["B"])
    low = max(min(bisect_left(known, pixels) - 1, len(known) - 2), 0)
    one, other = known[low : low + 2]  # the two nearest
    along = (pixels - one) / (other - one)  # share of the way from the one to the other
    by_rate = (rates[one] + along * (rates[other] - rates[one])) * pixels
    by_bytes = rates[one] * one + along * (rates[other] * other - rates[one] * one)
    if known[0] < pixels < known[-1]:
        return _if_any("at most", min(by_rate, by_bytes) * sizes["B"])
    return _if_any("at least", max(by_rate, by_bytes) * sizes["B"])


def _if_any(bound: Bound, count: float) -> tuple[Bound, float] | None:
    return (bound, count) if count > 0 else None


def _per_pixel(memory: Memory | None, tokens: int | None) -> Iterator[tuple[int, float]]:
    """Pixels, and bytes per image and pixel, at recorded sizes with that many tokens."""
    for m in memory.profiles if memory else ():
        for point, count in (("opt", m.activation_opt_bytes), ("max", m.activation_max_bytes)):
            at = ShapeProfile.parse(m.profile).sizes(point)
            if count is not None and at.get("T") == tokens:
                pixels = at["H"] * at["W"]
                yield pixels, count / (pixels * at["B"])
