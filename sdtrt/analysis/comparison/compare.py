"""Compare plans: which layers became which, what each group, module and kind of layer takes before and after.

`compare` aligns the engines of a baseline with those of one or more candidates. A group holds the layers of both sides
that do the same work ("these 3 layers became 1"), so every layer is in exactly one group and the groups' times add up
to the engines' totals. A module's time is that of its groups: where a fusion takes a layer over from another module,
both sides stay in one place.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from sdtrt.analysis.comparison.align import By, align
from sdtrt.analysis.comparison.noise import layers_ms
from sdtrt.analysis.module_paths import NO_MODULE, module_at
from sdtrt.analysis.session import Analysis
from sdtrt.errors import ConfigError
from sdtrt.plan.layers import Layer, Plan


@dataclass(frozen=True)
class Change:
    """A time before and after; None is unknown."""

    before_ms: float | None
    after_ms: float | None

    @property
    def delta_ms(self) -> float | None:
        """Negative when the candidate is faster."""
        return None if self.before_ms is None or self.after_ms is None else self.after_ms - self.before_ms

    @property
    def speedup(self) -> float | None:
        """Before over after: above 1 the candidate is faster."""
        return self.before_ms / self.after_ms if self.before_ms and self.after_ms else None

    @property
    def change_pct(self) -> float | None:
        """Change in percent of the time before."""
        return 100 * self.delta_ms / self.before_ms if self.before_ms and self.delta_ms is not None else None


@dataclass(frozen=True)
class Group(Change):
    """Layers of both sides that do the same work, and what they were matched by. One side may be empty."""

    before: tuple[Layer, ...]
    after: tuple[Layer, ...]
    by: By

    @cached_property
    def main(self) -> Layer:
        """The slowest layer, of the baseline where it has one: its name, module and kind are those of the group."""
        return max(self.before or self.after, key=lambda x: x.time_ms or 0)

    @property
    def module(self) -> str:
        """Module of the main layer."""
        return self.main.module or next((x.module for x in (*self.before, *self.after) if x.module), NO_MODULE)

    @property
    def nodes(self) -> tuple[str, ...]:
        """ONNX nodes of all its layers, each once."""
        return tuple(dict.fromkeys(n for x in (*self.before, *self.after) for n in x.nodes))

    @property
    def precisions(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Precisions before and after, each once; shapes, computed as integers beside the work, do not count."""
        return _precisions(self.before), _precisions(self.after)

    @property
    def kernels(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Kernels (tactics) before and after, each once."""
        return _each(x.kernel for x in self.before), _each(x.kernel for x in self.after)

    @property
    def precision_changed(self) -> bool:
        """Whether both sides have known precisions and they differ."""
        # TensorRT's plain float8 is torch's float8_e4m3fn.
        return _differ(*(tuple(p.removesuffix("_e4m3fn") for p in side) for side in self.precisions))

    @property
    def kernel_changed(self) -> bool:
        """Whether both sides have known kernels and they differ."""
        return _differ(*self.kernels)


@dataclass(frozen=True)
class Row(Change):
    """The time of a module or of a kind of layer."""

    name: str
    layers_before: int
    layers_after: int


@dataclass(frozen=True)
class PlanDiff:
    """One engine of the baseline against the same engine of a candidate."""

    component: str
    before: Plan
    after: Plan
    groups: tuple[Group, ...]

    @property
    def wall(self) -> Change:
        """Median wall time of one run."""
        return Change(self.before.wall_ms, self.after.wall_ms)

    @property
    def layers(self) -> Change:
        """Sum of the layer times."""
        return Change(layers_ms(self.before.layers), layers_ms(self.after.layers))

    @property
    def differences(self) -> tuple[str, ...]:
        """Known conditions that were not the same on both sides: times then differ for other reasons too."""
        sides = [
            {
                "device": p.device,
                "backend": p.backend if p.backend_version is None else f"{p.backend} {p.backend_version}",
                "sizes": _sizes(p.sizes),
                "input shapes": _sizes({name: "x".join(map(str, shape)) for name, shape in p.shapes.items()}),
            }
            for p in (self.before, self.after)
        ]
        pairs = [(what, *(side[what] for side in sides)) for what in sides[0]]
        strangers = self.groups and len(self.unmatched) == len(self.groups)
        alone = ("no layer of one matches a layer of the other",) if strangers else ()
        return alone + tuple(f"{what} {a} → {b}" for what, a, b in pairs if a and b and a != b)

    @property
    def unmatched(self) -> tuple[Group, ...]:
        """Layers that only one side has."""
        return tuple(g for g in self.groups if not (g.before and g.after))

    def modules(self, depth: int | None = None) -> tuple[Row, ...]:
        """Times by module, cut to `depth` steps, the largest change first."""
        return _rows(self.groups, lambda g: module_at(g.module, depth))

    @property
    def kinds(self) -> tuple[Row, ...]:
        """Times by kind; each layer counts under its own kind, so that work that changed its kind shows."""
        single = [_group((x,), (), "nothing") for x in self.before.layers]
        single += [_group((), (x,), "nothing") for x in self.after.layers]
        return _rows(single, lambda g: g.main.kind)


@dataclass(frozen=True)
class Comparison:
    """All engines of a baseline against those of one candidate; `removed` and `added` have no counterpart."""

    baseline: str
    candidate: str
    engines: tuple[PlanDiff, ...]
    removed: tuple[str, ...] = ()
    added: tuple[str, ...] = ()


def compare(*sides: Analysis | Plan | Sequence[Plan], names: Sequence[str] = ()) -> tuple[Comparison, ...]:
    """Compare the first of `sides`, the baseline, with each of the others; `names` are what reports call them.

    Engines are paired by component; two single engines are a pair whatever they are called. Raises ConfigError when
    there is nothing to pair.
    """
    plans = [_plans(side) for side in sides]
    names = names or [chr(ord("A") + i) if i < 26 else str(i) for i in range(len(plans))]
    if len(plans) < 2 or len(names) != len(plans):
        raise ConfigError(
            "a comparison takes a baseline and at least one candidate",
            slug="compare-sides",
            received=f"{len(plans)} of them" + (f", {len(names)} names" if len(names) != len(plans) else ""),
        )
    return tuple(_compare(plans[0], other, names[0], name) for other, name in zip(plans[1:], names[1:], strict=True))


def diff(before: Plan, after: Plan) -> PlanDiff:
    """One engine before and after."""
    groups = tuple(
        _group(tuple(before.layers[i] for i in left), tuple(after.layers[j] for j in right), by)
        for left, right, by in align(before, after)
    )
    return PlanDiff(before.component, before, after, groups)


def _plans(side: Analysis | Plan | Sequence[Plan]) -> Sequence[Plan]:
    if isinstance(side, Analysis):
        return side.plans
    return [side] if isinstance(side, Plan) else side


def _compare(baseline: Sequence[Plan], candidate: Sequence[Plan], name: str, other: str) -> Comparison:
    before, after = ({p.component: p for p in plans} for plans in (baseline, candidate))
    if len(before) == len(after) == 1:
        return Comparison(name, other, (diff(*before.values(), *after.values()),))
    pairs = tuple(diff(plan, after[component]) for component, plan in before.items() if component in after)
    if not pairs:
        raise ConfigError(
            f"{name} and {other} have no engine in common",
            slug="compare-components",
            received=", ".join(after) or "no engines",
            expected=f"one of {', '.join(before)}" if before else "engines",
            hint="give two bundles of the same family, or one engine on each side",
        )
    removed, added = (tuple(c for c in one if c not in other) for one, other in ((before, after), (after, before)))
    return Comparison(name, other, pairs, removed, added)


def _group(before: tuple[Layer, ...], after: tuple[Layer, ...], by: By) -> Group:
    return Group(layers_ms(before), layers_ms(after), before, after, by)


def _rows(groups: Iterable[Group], name: Callable[[Group], str]) -> tuple[Row, ...]:
    members: dict[str, list[Group]] = {}
    for group in groups:
        members.setdefault(name(group), []).append(group)
    rows = [_row(key, found) for key, found in members.items()]
    return tuple(sorted(rows, key=lambda row: -abs(row.delta_ms or 0)))


def _row(name: str, groups: Sequence[Group]) -> Row:
    before, after = [x for g in groups for x in g.before], [x for g in groups for x in g.after]
    return Row(layers_ms(before), layers_ms(after), name, len(before), len(after))


def _precisions(layers: Sequence[Layer]) -> tuple[str, ...]:
    return _each(x.precision for x in layers if x.kind != "shape") or _each(x.precision for x in layers)


def _sizes(sizes: Mapping[str, object]) -> str:
    return ", ".join(f"{name}={size}" for name, size in sorted(sizes.items()))


def _each(values: Iterable[str | None]) -> tuple[str, ...]:
    return tuple(sorted({v for v in values if v}))


def _differ(before: tuple[str, ...], after: tuple[str, ...]) -> bool:
    return bool(before and after and before != after)
