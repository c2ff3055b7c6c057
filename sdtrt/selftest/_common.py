"""Checks that every backend must pass: build, load, agree with eager PyTorch, treat rows alike, keep to its sizes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sdtrt.engines import Engine, accuracy
from sdtrt.errors import ShapeError
from sdtrt.selftest._bench import COMPONENTS, Bench
from sdtrt.selftest._runner import Case, Failed, Figures

if TYPE_CHECKING:
    from torch import Tensor

# Equal rows go through the same kernels: what they may differ in is far below the precision of either.
_ROWS = 1e-3


def build(bench: Bench) -> Figures:
    """Every component for two profiles."""
    made = {name: bench.build(name) for name in COMPONENTS}
    return {f"{n} MB": sum(f.stat().st_size for f in folder.iterdir()) / 1e6 for n, folder in made.items()}


def load(bench: Bench) -> Figures:
    """Load and run once."""
    shapes = {}
    for name in COMPONENTS:
        engine = bench.load(name)
        outputs = engine(**bench.inputs(engine, bench.sizes()))
        shapes[name] = ", ".join("x".join(map(str, t.shape)) for t in outputs.values())
    return shapes


def parity(bench: Bench) -> Figures:
    """Relative error at the least and the best size of both profiles."""
    limit, figures = accuracy.LIMITS[bench.precision][0], {}
    for name in COMPONENTS:
        engine = bench.load(name)
        for index in range(len(bench.profiles)):
            for point in ("min", "opt"):
                error = accuracy.component_error(engine, bench.eager(name), bench.sizes(index, point))
                figures[f"{name} {index} {point}"] = error
    worst = max(figures.values())
    if not worst <= limit:
        raise Failed(f"relative error {worst:.3g}, at most {limit:g} was expected", figures)
    return figures


def rows(bench: Bench) -> Figures:
    """One row repeated through the batch must give one result repeated."""
    figures = {}
    for name in COMPONENTS:
        engine = bench.load(name)
        for index in range(len(bench.profiles)):
            given = bench.inputs(engine, bench.sizes(index, "max"))
            alike = {n: t[:1].expand_as(t).contiguous() for n, t in given.items()}
            figures[f"{name} {index}"] = max(_spread(engine, n, t) for n, t in engine(**alike).items())
    if not max(figures.values()) <= _ROWS:
        raise Failed("equal rows of a batch have unequal results", figures)
    return figures


def _spread(engine: Engine, name: str, output: Tensor) -> float:
    """How far rows are from the first, relative to it; infinite when one is not a number."""
    first, *others = output.float().unbind(engine.spec.batch_axes[name])
    return max(accuracy.worst_error((other,), (first,)) for other in others)


def sizes(bench: Bench) -> Figures:
    """A visit to another size changes nothing, and a size that was not built is refused with those that were."""
    engine = bench.load("unet")
    here, there = (bench.inputs(engine, bench.sizes(i)) for i in (0, 1))
    before = engine(**here)["out_sample"].clone()
    engine(**there)
    if not before.equal(engine(**here)["out_sample"]):
        raise Failed("the result differs after a call of another size")
    try:
        engine(**bench.inputs(engine, {**bench.sizes(), "H": 96}))
    except ShapeError as exc:
        return {"refused": str(exc.received)}
    raise Failed("a size that was not built was not refused")


CASES = (
    Case("build", "text encoder and U-Net are built for two profiles", build),
    Case("load", "they load and run", load, ("build",)),
    Case("parity", "their results are those of eager PyTorch", parity, ("load",)),
    Case("rows", "identical rows in, identical rows out", rows, ("load",)),
    Case("sizes", "sizes are kept apart, others are refused", sizes, ("load",)),
)
