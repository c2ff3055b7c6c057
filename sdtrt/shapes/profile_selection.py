"""Which of the built sizes serves a call: the one place where a profile is chosen, for every backend.

Of the profiles in which all tensors fit, the nearest is the one whose best shapes are the fewest doublings away;
between equals the narrower is taken, then the one that was built first. It depends on the shapes alone, never on
earlier calls.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from sdtrt.shapes.spec import ComponentSpec, ShapeProfile

Shape = tuple[int, ...]
# (min, opt, max) shapes of every input.
Ranges = Mapping[str, tuple[Shape, Shape, Shape]]


def fits(shapes: Mapping[str, Shape], profile: Ranges) -> bool:
    """Whether all shapes are within a profile."""
    return all(
        len(shape) == len(profile[name][0])
        and all(a <= d <= b for a, d, b in zip(profile[name][0], shape, profile[name][2], strict=True))
        for name, shape in shapes.items()
    )


def nearest(shapes: Mapping[str, Shape], profiles: Sequence[Ranges]) -> int | None:
    """Number of the profile that serves these shapes best, or None when they fit in none."""
    fitting = [i for i, profile in enumerate(profiles) if fits(shapes, profile)]
    return min(fitting, key=lambda i: (*_distance(shapes, profiles[i]), i), default=None)


def _distance(shapes: Mapping[str, Shape], profile: Ranges) -> tuple[float, ...]:
    """Doublings from the best shapes in the tensor that is farthest, then in all; then how wide the profile is.

    Tensors are not simply added up: the batch is an axis of each of them, height and width are axes of one.
    """
    away = [_doublings(shape, profile[name][1]) for name, shape in shapes.items()]
    width = sum(_doublings(profile[name][2], profile[name][0]) for name in shapes)
    return round(max(away, default=0.0), 9), round(sum(away), 9), round(width, 9)


def _doublings(a: Shape, b: Shape) -> float:
    return sum(abs(math.log2(x / y)) for x, y in zip(a, b, strict=True) if x != y)


@dataclass(frozen=True)
class Fit:
    """The profile that serves a call, and the rows of each part when the batch is larger than it takes at once."""

    profile: int
    rows: tuple[int, ...] = ()


class Sizes:
    """The sizes of one engine: those of the bundle that concern it; `ranges` gives the shapes that a profile takes."""

    def __init__(
        self, spec: ComponentSpec, profiles: Sequence[ShapeProfile], ranges: Callable[[ShapeProfile], Ranges]
    ) -> None:
        self.spec, self.profiles = spec, concerning(spec, profiles)
        self.ranges = tuple(map(ranges, self.profiles))
        self.steps = spec.steps(profiles)
        self._batch = _batch_axes(spec)
        self.splits = bool(self._batch)
        self._known = lru_cache(maxsize=256)(self._find)  # a pipeline asks for the same few at every step

    def fit(self, shapes: Mapping[str, Sequence[int]]) -> Fit | None:
        """How a call with these input shapes is served; None when it is outside of what was built."""
        return self._known(tuple((t.name, tuple(shapes[t.name])) for t in self.spec.inputs))

    def _find(self, named: tuple[tuple[str, Shape], ...]) -> Fit | None:
        shapes = dict(named)
        if self._off_step(shapes):
            return None
        whole = nearest(shapes, self.ranges)
        return Fit(whole) if whole is not None else self._split(shapes)

    def _off_step(self, shapes: Mapping[str, Shape]) -> bool:
        return any(
            expr.times == 1 and shapes[t.name][axis] * expr.over % self.steps.get(expr.symbol, 1)
            for t in self.spec.inputs
            for axis, expr in t.axes().items()
        )

    def _split(self, shapes: Mapping[str, Shape]) -> Fit | None:
        """In as few and as even parts as fit: rows do not depend on each other."""
        if not self._batch:
            return None
        name, axis = next(iter(self._batch.items()))
        rows = shapes[name][axis]
        found = []
        for index, ranges in enumerate(self.ranges):
            low, high = ranges[name][0][axis], ranges[name][2][axis]
            count = -(-rows // high)
            # The last part may be a row smaller than the others: all are within the range when their mean is.
            if count > 1 and count * low <= rows and fits(self._part(shapes, -(-rows // count)), ranges):
                found.append((count, index))
        if not found:
            return None
        count = min(found)[0]
        fewest = [index for parts, index in found if parts == count]
        chosen = nearest(self._part(shapes, -(-rows // count)), [self.ranges[i] for i in fewest]) or 0
        return Fit(fewest[chosen], tuple(rows // count + (i < rows % count) for i in range(count)))

    def _part(self, shapes: Mapping[str, Shape], rows: int) -> dict[str, Shape]:
        axes = self._batch
        return {n: (*s[: axes[n]], rows, *s[axes[n] + 1 :]) if n in axes else s for n, s in shapes.items()}


def _batch_axes(spec: ComponentSpec) -> dict[str, int]:
    """The batch axis of every input that has one; none at all when rows cannot be taken apart and joined again."""
    axes = {t.name: (a, e) for t in spec.inputs for a, e in t.axes().items() if e.symbol == "B"}
    joined = all(any(e.symbol == "B" for e in t.axes().values()) for t in spec.outputs)
    alike = len({expr for _, expr in axes.values()}) == 1
    return {name: axis for name, (axis, _) in axes.items()} if joined and alike else {}


def concerning(spec: ComponentSpec, profiles: Sequence[ShapeProfile]) -> tuple[ShapeProfile, ...]:
    """The profiles as far as a component depends on them: only the symbols in its shapes, and each range once.

    A part without height and width, a text encoder, takes too little of an image's time for buckets of its own: a
    range within an earlier one adds nothing to it, so that a new image size leaves its engine as it is.
    """
    symbols = {e.symbol for t in (*spec.inputs, *spec.outputs) for e in t.axes().values()}
    kept: list[ShapeProfile] = []
    for profile in profiles:
        mine = ShapeProfile({s: r for s, r in profile.ranges.items() if s in symbols})
        if not any(mine == k or (not symbols & {"H", "W"} and _within(mine, k)) for k in kept):
            kept.append(mine)
    return tuple(kept)


def _within(inner: ShapeProfile, outer: ShapeProfile) -> bool:
    return all(outer.ranges[s][0] <= r[0] and r[2] <= outer.ranges[s][2] for s, r in inner.ranges.items())


def varying(spec: ComponentSpec, profiles: Sequence[ShapeProfile]) -> set[str]:
    """Dimensions, as "2B" or "1H", that have more than one size in the profiles: the dynamic axes of a graph."""
    exprs = {f"{e.times}{e.symbol}": e for t in (*spec.inputs, *spec.outputs) for e in t.axes().values()}
    return {key for key, e in exprs.items() if len({size for p in profiles for size in p.dim(e)}) > 1}


def of_graph(spec: ComponentSpec, profiles: Sequence[ShapeProfile]) -> str:
    """What a graph with dynamic axes depends on: which axes vary, in what steps, and the sizes that are constants.

    Where the first profile is best counts too: that is where an engine was compared with eager and timed.
    """
    free = {key.lstrip("0123456789") for key in varying(spec, profiles)}
    first = concerning(spec, profiles)[0]
    steps = {s: n for s, n in spec.steps(profiles).items() if s in free}
    parts = [f"any {', '.join(s for s in first.ranges if s in free)}"] if free else []
    parts += [f"{s} in steps of {n}" for s, n in steps.items()]
    parts += [f"{s}={r[1]}" for s, r in first.ranges.items() if s not in free]
    best = ",".join(f"{s}={r[1]}" for s, r in first.ranges.items())
    return f"{'; '.join(parts)}; measured at {best}"
