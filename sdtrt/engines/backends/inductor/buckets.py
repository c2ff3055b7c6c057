"""Which fixed sizes a profile stands for: compiled code knows its sizes, so an engine has one package for each.

A profile names sizes at its least, best and largest point; all others in its range would be guesses. Of the batch it
names the best and the largest, with guidance and without: a smaller batch runs in the next larger package.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

from sdtrt.shapes.spec import ComponentSpec, Expr, ShapeProfile

if TYPE_CHECKING:
    from torch import Tensor

_SIZES = ("H", "W", "T")


@dataclass(frozen=True)
class Bucket:
    """Sizes of one package: `sizes` of the symbols that its component has, and rows of its inputs."""

    sizes: tuple[tuple[str, int], ...]
    rows: int

    @property
    def name(self) -> str:
        """For file names: "512x512x77x2rows"."""
        return "x".join([*(str(size) for _, size in self.sizes), f"{self.rows}rows"])


def of(spec: ComponentSpec, profiles: Sequence[ShapeProfile], rows: Sequence[int] = ()) -> tuple[Bucket, ...]:
    """All buckets of a component, smallest first. `rows` replaces those that follow from the profiles."""
    unique: dict[Bucket, None] = {}
    for profile, point in product(profiles, ("min", "opt", "max")):
        sizes = tuple((s, profile.sizes(point)[s]) for s in _SIZES if s in spec.symbols)
        for count in rows or _rows(spec, profile):
            unique[Bucket(sizes, count)] = None
    return tuple(sorted(unique, key=lambda b: (b.sizes, b.rows)))


def fixed(spec: ComponentSpec, buckets: Sequence[Bucket], like: ShapeProfile) -> tuple[ShapeProfile, ...]:
    """The buckets as profiles, which is what an engine says it was built for; other symbols are as in `like`."""
    factor = _doubling(spec)
    most: dict[tuple[tuple[str, int], ...], int] = {}
    for bucket in buckets:
        most[bucket.sizes] = max(most.get(bucket.sizes, 0), bucket.rows)
    return tuple(
        ShapeProfile(
            {
                **like.ranges,
                "B": (1, max(1, rows // factor), max(1, rows // factor)),
                **{s: (size, size, size) for s, size in sizes},
            }
        )
        for sizes, rows in most.items()
    )


def example(spec: ComponentSpec, bucket: Bucket) -> dict[str, Tensor]:
    """Random inputs of exactly this bucket, on the CPU."""
    from sdtrt.shapes.sample_inputs import sample_inputs

    every = dict.fromkeys("BHWT", 1) | {"B": bucket.rows} | dict(bucket.sizes)
    return {n: t[: bucket.rows] for n, t in sample_inputs(spec, every).items()}


def _doubling(spec: ComponentSpec) -> int:
    """Rows per image at most: two where guidance doubles the batch."""
    return max(Expr.parse(d).times for t in spec.inputs if isinstance(d := t.shape[0], str))


def _rows(spec: ComponentSpec, profile: ShapeProfile) -> set[int]:
    _, best, most = profile.ranges["B"]
    return {images * factor for images in (best, most) for factor in (1, _doubling(spec))}
