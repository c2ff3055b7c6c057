"""Shapes, stated once: everything that depends on a tensor's shape is derived from these three types.

A dimension is an int or one symbol with a coefficient and a divisor: "2B", "H/8", "T". Dynamic axes, optimization
profiles, sample inputs, buffers and the checks at run time all come from `TensorSpec` and `ShapeProfile`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from sdtrt.errors import ConfigError, ShapeError

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

Dim = int | str
Range = tuple[int, int, int]
SYMBOLS = {"B": "batch (images)", "H": "image height", "W": "image width", "T": "prompt tokens"}
_DIM = re.compile(r"(?P<times>\d*)(?P<symbol>[BHWT])(?:/(?P<over>\d+))?")


@dataclass(frozen=True)
class Expr:
    """A parsed symbolic dimension: `times * symbol / over`."""

    times: int
    symbol: str
    over: int

    @classmethod
    @cache  # every call of an engine asks for the same few
    def parse(cls, text: str) -> Expr:
        """Parse "2B" or "H/8"; raises ConfigError for anything else."""
        match = _DIM.fullmatch(text)
        if not match:
            raise ConfigError("not a dimension", received=text, expected='a number, or like "2B", "H/8", "T"')
        return cls(int(match["times"] or 1), match["symbol"], int(match["over"] or 1))

    def value(self, size: int) -> int:
        """Size of the dimension when the symbol has `size`; ShapeError unless it divides."""
        if size * self.times % self.over:
            raise ShapeError(
                f"{SYMBOLS[self.symbol]} must be divisible by {self.over}",
                slug="not-divisible",
                received=size,
                expected=f"{size // self.over * self.over} or {(size // self.over + 1) * self.over}",
                hint=f"choose a multiple of {self.over}",
            )
        return size * self.times // self.over


@dataclass(frozen=True)
class TensorSpec:
    """Name, symbolic shape and dtype ("float32", "float16", "int64") of one input or output of a component."""

    name: str
    shape: tuple[Dim, ...]
    dtype: str

    def resolve(self, sizes: Mapping[str, int]) -> tuple[int, ...]:
        """Concrete shape at `sizes`, such as {"B": 1, "H": 512, "W": 512, "T": 77}."""
        exprs = self.axes()
        return tuple(
            d if isinstance(d, int) else exprs[i].value(sizes[exprs[i].symbol]) for i, d in enumerate(self.shape)
        )

    def axes(self) -> dict[int, Expr]:
        """The symbolic axes: {axis: expression}."""
        return {i: Expr.parse(d) for i, d in enumerate(self.shape) if isinstance(d, str)}


@dataclass(frozen=True)
class ShapeProfile:
    """Ranges (min, opt, max) of the symbols for which one engine is built and tuned."""

    ranges: Mapping[str, Range]

    @classmethod
    def parse(cls, text: str) -> ShapeProfile:
        """Parse "B=1:1:4,H=256:512:768,W=512"; a single number is a fixed size. Raises ConfigError."""
        ranges: dict[str, Range] = {}
        for part in filter(None, (p.strip() for p in text.split(","))):
            symbol, _, value = part.partition("=")
            numbers = value.split(":")
            if symbol not in SYMBOLS or len(numbers) not in (1, 3) or not all(n.isdigit() for n in numbers):
                raise ConfigError(
                    "a profile part cannot be read",
                    slug="profile-syntax",
                    received=part,
                    expected="SYMBOL=MIN:OPT:MAX or SYMBOL=SIZE with SYMBOL one of " + ", ".join(SYMBOLS),
                    hint='write it like "B=1:1:4,H=256:512:768,W=256:512:768"',
                )
            low, opt, high = (int(n) for n in (numbers * 3 if len(numbers) == 1 else numbers))
            if not 0 < low <= opt <= high:
                raise ConfigError(
                    f"profile range of {symbol} is not ordered",
                    slug="profile-order",
                    received=f"min {low}, opt {opt}, max {high}",
                    expected="0 < min <= opt <= max",
                )
            ranges[symbol] = (low, opt, high)
        return cls(ranges)

    def with_defaults(self, defaults: ShapeProfile) -> ShapeProfile:
        """This profile, with the symbols that it leaves out taken from `defaults`."""
        return ShapeProfile({s: self.ranges.get(s, r) for s, r in defaults.ranges.items()})

    def __str__(self) -> str:
        """The text that `parse` reads."""
        return ",".join(
            f"{s}={r[0]}" if len(set(r)) == 1 else f"{s}={r[0]}:{r[1]}:{r[2]}" for s, r in self.ranges.items()
        )

    def sizes(self, point: str = "opt") -> dict[str, int]:
        """Sizes of all symbols at "min", "opt" or "max"."""
        index = ("min", "opt", "max").index(point)
        return {s: r[index] for s, r in self.ranges.items()}

    def dim(self, expr: Expr) -> Range:
        """Range of one dimension.

        "2B" means *up to* twice the batch: classifier-free guidance doubles it, and may be off or switched off in
        mid-run, so the minimum takes no coefficient. One engine then serves both.
        """
        low, opt, high = self.ranges[expr.symbol]
        return Expr(1, expr.symbol, expr.over).value(low), expr.value(opt), expr.value(high)

    def shapes(self, spec: TensorSpec) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
        """(min, opt, max) shapes of one tensor, as an optimization profile wants them."""
        dims = [(d, d, d) if isinstance(d, int) else self.dim(Expr.parse(d)) for d in spec.shape]
        return tuple(d[0] for d in dims), tuple(d[1] for d in dims), tuple(d[2] for d in dims)


def step(profiles: Sequence[ShapeProfile], symbol: str, fine: int, coarse: int) -> int:
    """Granularity of a size: `coarse` pixels when every size named in the profiles is a multiple of it, else `fine`.

    A U-Net halves its latent several times. When all sizes divide, its upsampling is a constant scale of two, which
    traces in half the time and which TensorRT prefers; otherwise the sizes are taken from the skip connections.
    """
    named = [v for p in profiles for v in p.ranges[symbol]]
    return coarse if all(v % coarse == 0 for v in named) else fine


@dataclass(frozen=True)
class ComponentSpec:
    """One exportable part of a pipeline, and the only statement of its shapes.

    `load(folder, dtype)` gives a module that takes `inputs` as keywords and returns `outputs` as a tuple; `attribute`
    is the diffusers attribute it serves; `scale` is pixels per latent, and `align` the pixels of which a size must be a
    multiple for its graph to need no odd-size handling. `source` is where its weights lie when they are not those of
    the checkpoint; `variant` says how its graph differs from what the config asks for.
    """

    name: str
    attribute: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    dtype: str
    load: Callable[[Path], nn.Module]
    scale: int = 1
    align: int = 1
    source: Path | None = None
    variant: str | None = None

    def weights(self, checkpoint: Path) -> Path:
        """The folder of its config and weights."""
        return self.source or checkpoint / self.attribute

    def steps(self, profiles: Sequence[ShapeProfile]) -> dict[str, int]:
        """Granularity of height and width, in pixels, that the engine of this component keeps."""
        return {s: step(profiles, s, self.scale, max(self.align, self.scale)) for s in ("H", "W")}

    def output_shapes(self, shapes: Mapping[str, Sequence[int]]) -> dict[str, tuple[int, ...]]:
        """Shapes of all outputs for given input shapes, such as {"sample": (2, 4, 64, 64), ...}."""
        sizes: dict[str, int] = {}
        known: dict[Dim, int] = {}
        for t in self.inputs:
            for axis, expr in t.axes().items():
                known[t.shape[axis]] = shapes[t.name][axis]
                sizes.setdefault(expr.symbol, shapes[t.name][axis] * expr.over // expr.times)
        for t in self.outputs:
            for axis, expr in t.axes().items():
                known.setdefault(t.shape[axis], expr.value(sizes[expr.symbol]))
        return {t.name: tuple(d if isinstance(d, int) else known[d] for d in t.shape) for t in self.outputs}
