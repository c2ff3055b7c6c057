"""Errors of a call's shapes; for a size that was not built: the built ones, the nearest of them, the profile to add."""

import math
from collections.abc import Callable, Mapping, Sequence

from sdtrt.errors import ShapeError
from sdtrt.shapes.profile_selection import BuiltSizes
from sdtrt.shapes.spec import SYMBOLS, ComponentSpec, ShapeProfile


def check(spec: ComponentSpec, shapes: Mapping[str, Sequence[int]]) -> None:
    """ShapeError for what no profile allows: another number of axes, another fixed size, tensors that disagree."""
    dims: dict[str, int] = {}
    for t in spec.inputs:
        shape = tuple(shapes[t.name])
        fixed = len(shape) == len(t.shape) and all(
            d == size for d, size in zip(t.shape, shape, strict=True) if isinstance(d, int)
        )
        if not fixed:
            raise ShapeError(
                f"{spec.name}: {t.name} has another shape than the model takes",
                slug="wrong-shape",
                received=shape,
                expected=f"({', '.join(map(str, t.shape))})",
            )
        for dim, size in zip(t.shape, shape, strict=True):
            if isinstance(dim, str) and dims.setdefault(dim, size) != size:
                raise ShapeError(
                    f"{spec.name}: {t.name} differs from the other tensors in {dim}",
                    slug="sizes-differ",
                    received=size,
                    expected=dims[dim],
                )


def error(
    built: BuiltSizes, shapes: Mapping[str, Sequence[int]], describe_add_profile: Callable[[str], str]
) -> ShapeError:
    """The error for shapes that no profile serves; `describe_add_profile` gives the command that adds a profile."""
    spec, sizes = built.spec, built.spec.sizes_of(shapes)
    nearest = nearest_sizes(built, sizes)
    ranged = {s for p in built.profiles for s, (low, _, high) in p.ranges.items() if low < high}
    steps = ", ".join(f"{s} in steps of {n}" for s, n in built.steps.items() if s in ranged and n > 1)
    if "T" in sizes and all(p.ranges["T"] == (sizes["T"],) * 3 for p in built.profiles):
        del sizes["T"], nearest["T"]
    profiles = [f"{p}: {_reason(built, i, sizes)}" for i, p in enumerate(built.profiles)]
    if uneven := [s for s in ("H", "W") if sizes.get(s, 0) % spec.scale]:
        names = " and ".join(SYMBOLS[s] for s in uneven)
        hint = f"choose the size above; the model takes multiples of {spec.scale} only for {names}"
    else:
        hint = f"choose a size from there, or add this one:\n    {describe_add_profile(_suggested(built, sizes))}"
    return ShapeError(
        f"{spec.name}: it was not built for {text(sizes)}",
        slug="outside-profile",
        received=", ".join(f"{n} {tuple(s)}" for n, s in shapes.items()),
        expected="\n    ".join([*profiles, f"nearest that works: {text(nearest)}" + (f" ({steps})" if steps else "")]),
        hint=hint,
    )


def nearest_sizes(built: BuiltSizes, sizes: Mapping[str, int]) -> dict[str, int]:
    """The sizes that are the fewest doublings away, of those that each profile takes; a larger batch is split."""

    def within(profile: ShapeProfile) -> dict[str, int]:
        nearest = {}
        for symbol, size in sizes.items():
            low, _, high = profile.ranges[symbol]
            step = built.steps.get(symbol, 1)
            nearest[symbol] = max(low, min(high, math.floor(size / step + 0.5) * step))
            if symbol == "B" and built.spec.can_split_batch:
                parts = -(-size // high)
                nearest[symbol] = size if parts * low <= size else max(low, (parts - 1) * high)
        return nearest

    candidates = [within(p) for p in built.profiles]
    return min(candidates, key=lambda near: round(sum(abs(math.log2(near[s] / sizes[s])) for s in sizes), 9))


def text(sizes: Mapping[str, int]) -> str:
    """Sizes as a profile names them: "B=1,H=768,W=1024"."""
    return ",".join(f"{s}={n}" for s, n in sizes.items())


def _reason(built: BuiltSizes, index: int, sizes: Mapping[str, int]) -> str:
    reasons = []
    for symbol, size in sizes.items():
        low, _, high = built.profiles[index].ranges[symbol]
        step = built.steps.get(symbol, 1)
        if size < low or (size > high and not (symbol == "B" and built.spec.can_split_batch)):
            limits = f"outside {low} to {high}" if low < high else f"not {low}"
            reasons.append(f"{SYMBOLS[symbol]} {size} is {limits}")
        elif size % step:
            reasons.append(f"{SYMBOLS[symbol]} {size} is not a multiple of {step}")
    ranges = (f"{name} {low} to {high}" for name, (low, _, high) in built.ranges[index].items())
    return ", ".join(reasons) or f"its engine takes {', '.join(ranges)}"


def _suggested(built: BuiltSizes, sizes: Mapping[str, int]) -> str:
    """A profile for these sizes alone. A batch above all that was built is split, so it needs no profile."""
    max_batch = max(p.ranges["B"][2] for p in built.profiles)
    return text({s: min(n, max_batch) if s == "B" else n for s, n in sizes.items()})
