"""Shapes, stated once: TensorSpec and ComponentSpec for a component, ShapeProfile for the sizes it is built for.

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

    from torch import Tensor, nn

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
    @cache  # every engine call parses the same few
    def parse(cls, text: str) -> Expr:
        """Parse "2B" or "H/8"; raises ConfigError for anything else."""
        match = _DIM.fullmatch(text)
        if not match:
            raise ConfigError("not a dimension", received=text, expected='a number, or like "2B", "H/8", "T"')
        return cls(int(match["times"] or 1), match["symbol"], int(match["over"] or 1))

    @property
    def key(self) -> str:
        """Factor and symbol, such as "2B" or "1H". Dimensions of one key vary together."""
        return f"{self.times}{self.symbol}"

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
    """Granularity of a size: `coarse` when every size in the profiles is a multiple of it, else `fine`.

    A U-Net halves its latent several times. When all sizes divide, its upsampling is a constant scale of two, which
    traces in half the time and which TensorRT prefers; otherwise the sizes are taken from the skip connections.

    Args:
        profiles: all profiles of the build.
        symbol: "H" or "W".
        fine: pixels per latent.
        coarse: pixels of which every halving in the graph is even.
    """
    sizes = [size for p in profiles for size in p.ranges[symbol]]
    return coarse if all(size % coarse == 0 for size in sizes) else fine


@dataclass(frozen=True)
class ComponentSpec:
    """One exportable part of a pipeline, and the only statement of its shapes.

    Attributes:
        name: of the component, such as "vae_decoder".
        attribute: the attribute of the diffusers pipeline that it serves, such as "vae".
        inputs: what the module takes as keywords.
        outputs: what it returns as a tuple.
        dtype: of its weights and activations.
        load: loads the module from the checkpoint's folder.
        scale: pixels per latent.
        align: pixels of which a size must be a multiple for the graph to need no odd-size handling.
        source: the folder of its weights when that is not in the checkpoint.
        variant: how its graph differs from that of the config.
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

    @property
    def symbols(self) -> frozenset[str]:
        """Symbols in the shapes of the inputs, such as {"B", "H", "W"}; the outputs have no others."""
        return frozenset(expr.symbol for t in self.inputs for expr in t.axes().values())

    @property
    def batch_axes(self) -> dict[str, int]:
        """The batch axis, not always the first, of each input and output that has one."""
        tensors = (*self.inputs, *self.outputs)
        return {t.name: axis for t in tensors for axis, expr in t.axes().items() if expr.symbol == "B"}

    @property
    def can_split_batch(self) -> bool:
        """Whether a call can run in parts: every output has a batch axis, and all inputs have the same rows."""
        axes = self.batch_axes
        rows = {t.shape[axes[t.name]] for t in self.inputs if t.name in axes}
        return len(rows) == 1 and all(t.name in axes for t in self.outputs)

    def steps(self, profiles: Sequence[ShapeProfile]) -> dict[str, int]:
        """Granularity of height and width, in pixels, that the engine of this component keeps."""
        return {s: step(profiles, s, self.scale, max(self.align, self.scale)) for s in ("H", "W")}

    def sizes_of(self, shapes: Mapping[str, Sequence[int]]) -> dict[str, int]:
        """Sizes of the symbols, in the order of SYMBOLS, for input shapes such as {"sample": (2, 4, 64, 64), ...}.

        The first input that has a symbol decides. An odd number of "2B" rows is that many images without guidance.
        """
        sizes: dict[str, int] = {}
        for t in self.inputs:
            for axis, expr in t.axes().items():
                size = shapes[t.name][axis] * expr.over
                sizes.setdefault(expr.symbol, size // expr.times if size % expr.times == 0 else size)
        return {symbol: sizes[symbol] for symbol in SYMBOLS if symbol in sizes}

    def output_shapes(self, shapes: Mapping[str, Sequence[int]]) -> dict[str, tuple[int, ...]]:
        """Shapes of all outputs for given input shapes, such as {"sample": (2, 4, 64, 64), ...}.

        A dimension that an input has too, such as "2B", is taken from there: its rows may be odd.
        """
        sizes = self.sizes_of(shapes)
        dims: dict[Dim, int] = {t.shape[axis]: shapes[t.name][axis] for t in self.inputs for axis in t.axes()}
        for t in self.outputs:
            for axis, expr in t.axes().items():
                dims.setdefault(t.shape[axis], expr.value(sizes[expr.symbol]))
        return {t.name: tuple(d if isinstance(d, int) else dims[d] for d in t.shape) for t in self.outputs}


def shapes_of(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """Shapes of tensors by name."""
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}
