"""A size that was not built: what was, the nearest that works, and the profile that would add it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from sdtrt.errors import ShapeError
from sdtrt.shapes.profile_selection import Sizes
from sdtrt.shapes.spec import SYMBOLS, ComponentSpec, ShapeProfile


def check(spec: ComponentSpec, shapes: Mapping[str, Sequence[int]]) -> None:
    """What no profile could mend: another number of axes, another fixed size, tensors that contradict each other."""
    known: dict[str, int] = {}
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
            if isinstance(dim, str) and known.setdefault(dim, size) != size:
                raise ShapeError(
                    f"{spec.name}: {t.name} differs from the other tensors in {dim}",
                    slug="sizes-differ",
                    received=size,
                    expected=known[dim],
                )


def error(sizes: Sizes, shapes: Mapping[str, Sequence[int]], describe_add_profile: Callable[[str], str]) -> ShapeError:
    """The error for shapes that no profile serves; `describe_add_profile` gives the command that adds a profile."""
    spec, asked = sizes.spec, asked_sizes(sizes.spec, shapes)
    best = nearest_sizes(sizes, asked)
    ranged = {s for p in sizes.profiles for s, (low, _, high) in p.ranges.items() if low < high}
    steps = ", ".join(f"{s} in steps of {n}" for s, n in sizes.steps.items() if s in ranged and n > 1)
    fixed = {s for s, n in asked.items() if s == "T" and all(p.ranges[s] == (n, n, n) for p in sizes.profiles)}
    asked, best = ({s: n for s, n in found.items() if s not in fixed} for found in (asked, best))
    built = [f"{p}: {_reason(sizes, i, asked)}" for i, p in enumerate(sizes.profiles)]
    if uneven := [s for s in ("H", "W") if asked.get(s, 0) % spec.scale]:
        names = " and ".join(SYMBOLS[s] for s in uneven)
        hint = f"choose the size above; the model takes multiples of {spec.scale} only for {names}"
    else:
        hint = f"choose a size from there, or add this one:\n    {describe_add_profile(_suggested(sizes, asked))}"
    return ShapeError(
        f"{spec.name}: it was not built for {text(asked)}",
        slug="outside-profile",
        received=", ".join(f"{n} {tuple(s)}" for n, s in shapes.items()),
        expected="\n    ".join([*built, f"nearest that works: {text(best)}" + (f" ({steps})" if steps else "")]),
        hint=hint,
    )


def asked_sizes(spec: ComponentSpec, shapes: Mapping[str, Sequence[int]]) -> dict[str, int]:
    """The symbols' sizes in a call; an odd number of "2B" rows is that many images without guidance."""
    sizes: dict[str, int] = {}
    for t in spec.inputs:
        for axis, expr in t.axes().items():
            size = shapes[t.name][axis] * expr.over
            sizes.setdefault(expr.symbol, size // expr.times if size % expr.times == 0 else size)
    return {s: sizes[s] for s in SYMBOLS if s in sizes}


def nearest_sizes(sizes: Sizes, asked: Mapping[str, int]) -> dict[str, int]:
    """Of what each profile takes, the sizes that are the fewest doublings away; a larger batch is split."""

    def within(profile: ShapeProfile) -> dict[str, int]:
        found = {}
        for symbol, size in asked.items():
            low, _, high = profile.ranges[symbol]
            step = sizes.steps.get(symbol, 1)
            found[symbol] = max(low, min(high, math.floor(size / step + 0.5) * step))
            if symbol == "B" and sizes.splits:
                parts = -(-size // high)
                found[symbol] = size if parts * low <= size else max(low, (parts - 1) * high)
        return found

    candidates = [within(p) for p in sizes.profiles]
    return min(candidates, key=lambda found: round(sum(abs(math.log2(found[s] / asked[s])) for s in asked), 9))


def text(sizes: Mapping[str, int]) -> str:
    """Sizes as a profile names them: "B=1,H=768,W=1024"."""
    return ",".join(f"{s}={n}" for s, n in sizes.items())


def _reason(sizes: Sizes, index: int, asked: Mapping[str, int]) -> str:
    found = []
    for symbol, size in asked.items():
        low, _, high = sizes.profiles[index].ranges[symbol]
        step = sizes.steps.get(symbol, 1)
        if size < low or (size > high and not (symbol == "B" and sizes.splits)):
            built = f"outside {low} to {high}" if low < high else f"not {low}"
            found.append(f"{SYMBOLS[symbol]} {size} is {built}")
        elif size % step:
            found.append(f"{SYMBOLS[symbol]} {size} is not a multiple of {step}")
    taken = (f"{name} {low} to {high}" for name, (low, _, high) in sizes.ranges[index].items())
    return ", ".join(found) or f"its engine takes {', '.join(taken)}"


def _suggested(sizes: Sizes, asked: Mapping[str, int]) -> str:
    """A profile for these sizes alone. A batch above all that was built is split, so it needs no profile."""
    most = max(p.ranges["B"][2] for p in sizes.profiles)
    return text({s: min(n, most) if s == "B" else n for s, n in asked.items()})
