"""Which of the built sizes serves a call: the one place where a profile is chosen, for every backend.

Of the profiles in which all tensors fit, the nearest is the one whose best shapes are the fewest doublings away;
between equals the narrower is taken, then the one that was built first. It depends on the shapes alone, never on
earlier calls.
"""

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
class ProfileChoice:
    """The profile that serves a call, and the rows of each part when the batch is larger than it takes at once."""

    profile: int
    rows: tuple[int, ...] = ()


class BuiltSizes:
    """The sizes of one engine: relevant profiles, the shape ranges in each, and the steps of height and width."""

    def __init__(
        self, spec: ComponentSpec, profiles: Sequence[ShapeProfile], ranges: Callable[[ShapeProfile], Ranges]
    ) -> None:
        self.spec, self.profiles = spec, relevant_profiles(spec, profiles)
        self.ranges = tuple(map(ranges, self.profiles))
        self.steps = spec.steps(profiles)
        self._batch_axes = spec.batch_axes
        self._choose = lru_cache(maxsize=256)(self._choose_uncached)  # every denoising step has the same shapes

    def choose(self, shapes: Mapping[str, Sequence[int]]) -> ProfileChoice | None:
        """How a call with these input shapes is served; None when no profile takes them."""
        return self._choose(tuple((t.name, tuple(shapes[t.name])) for t in self.spec.inputs))

    def _choose_uncached(self, items: tuple[tuple[str, Shape], ...]) -> ProfileChoice | None:
        shapes = dict(items)
        if self._off_step(shapes):
            return None
        whole = nearest(shapes, self.ranges)
        return ProfileChoice(whole) if whole is not None else self._split(shapes)

    def _off_step(self, shapes: Mapping[str, Shape]) -> bool:
        return any(
            expr.times == 1 and shapes[t.name][axis] * expr.over % self.steps.get(expr.symbol, 1)
            for t in self.spec.inputs
            for axis, expr in t.axes().items()
        )

    def _split(self, shapes: Mapping[str, Shape]) -> ProfileChoice | None:
        """As few and as even parts as fit: the rows of a batch do not depend on each other."""
        if not self.spec.can_split_batch:
            return None
        name, axis = next((n, self._batch_axes[n]) for n in shapes if n in self._batch_axes)
        rows = shapes[name][axis]
        candidates = []
        for index, ranges in enumerate(self.ranges):
            low, high = ranges[name][0][axis], ranges[name][2][axis]
            count = -(-rows // high)
            # The last part may be a row smaller than the others: all are within the range when their mean is.
            if count > 1 and count * low <= rows and fits(self._part(shapes, -(-rows // count)), ranges):
                candidates.append((count, index))
        if not candidates:
            return None
        count = min(candidates)[0]
        fewest = [index for parts, index in candidates if parts == count]
        chosen = nearest(self._part(shapes, -(-rows // count)), [self.ranges[i] for i in fewest]) or 0
        return ProfileChoice(fewest[chosen], tuple(rows // count + (i < rows % count) for i in range(count)))

    def _part(self, shapes: Mapping[str, Shape], rows: int) -> dict[str, Shape]:
        axes = self._batch_axes
        return {n: (*s[: axes[n]], rows, *s[axes[n] + 1 :]) if n in axes else s for n, s in shapes.items()}


def relevant_profiles(spec: ComponentSpec, profiles: Sequence[ShapeProfile]) -> tuple[ShapeProfile, ...]:
    """The profiles as far as a component depends on them: only the symbols in its shapes, and each range once.

    A component without height and width, a text encoder, takes too little of an image's time for profiles of its own:
    a range within an earlier one adds nothing to it, so that a new image size leaves its engine as it is.
    """
    sized = bool(spec.symbols & {"H", "W"})
    kept: list[ShapeProfile] = []
    for profile in profiles:
        own = ShapeProfile({s: r for s, r in profile.ranges.items() if s in spec.symbols})
        if not any(own == k or (not sized and _within(own, k)) for k in kept):
            kept.append(own)
    return tuple(kept)


def _within(inner: ShapeProfile, outer: ShapeProfile) -> bool:
    return all(outer.ranges[s][0] <= r[0] and r[2] <= outer.ranges[s][2] for s, r in inner.ranges.items())


def dynamic_dims(spec: ComponentSpec, profiles: Sequence[ShapeProfile]) -> set[str]:
    """Keys ("2B", "1H") of dimensions that have more than one size in the profiles: the dynamic axes of a graph."""
    exprs = {e.key: e for t in (*spec.inputs, *spec.outputs) for e in t.axes().values()}
    return {key for key, e in exprs.items() if len({size for p in profiles for size in p.dim(e)}) > 1}


def graph_sizes_key(spec: ComponentSpec, profiles: Sequence[ShapeProfile]) -> str:
    """What a graph with dynamic axes depends on: which axes vary, in what steps, and the sizes that are constants.

    The best sizes of the first profile count too: the engine is compared with eager and timed there.
    """
    dynamic = {key.lstrip("0123456789") for key in dynamic_dims(spec, profiles)}
    first = relevant_profiles(spec, profiles)[0]
    parts = [f"any {', '.join(s for s in first.ranges if s in dynamic)}"] if dynamic else []
    parts += [f"{s} in steps of {n}" for s, n in spec.steps(profiles).items() if s in dynamic]
    parts += [f"{s}={r[1]}" for s, r in first.ranges.items() if s not in dynamic]
    best = ",".join(f"{s}={size}" for s, size in first.sizes().items())
    return f"{'; '.join(parts)}; measured at {best}"
