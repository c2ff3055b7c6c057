"""Checks of every backend: build, load, error against eager PyTorch, equal rows of a batch, changes of size."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sdtrt.engines import Engine, accuracy
from sdtrt.errors import ShapeError
from sdtrt.selftest._bench import COMPONENTS, Bench
from sdtrt.selftest._runner import Case, Failed, Figures

if TYPE_CHECKING:
    from torch import Tensor

# Equal rows go through the same kernels: their difference is far below the precision of either.
_MAX_ROW_ERROR = 1e-3


def build(bench: Bench) -> Figures:
    """Every component for two profiles."""
    folders = {name: bench.build(name) for name in COMPONENTS}
    return {f"{n} MB": sum(f.stat().st_size for f in folder.iterdir()) / 1e6 for n, folder in folders.items()}


def load(bench: Bench) -> Figures:
    """Load and run once."""
    shapes = {}
    for name in COMPONENTS:
        engine = bench.load(name)
        outputs = engine(**bench.inputs(engine, bench.sizes()))
        shapes[name] = ", ".join("x".join(map(str, t.shape)) for t in outputs.values())
    return shapes


def parity(bench: Bench) -> Figures:
    """Relative error at the min and the opt size of both profiles."""
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
            inputs = bench.inputs(engine, bench.sizes(index, "max"))
            equal_rows = {n: t[:1].expand_as(t).contiguous() for n, t in inputs.items()}
            figures[f"{name} {index}"] = max(_row_error(engine, n, t) for n, t in engine(**equal_rows).items())
    if not max(figures.values()) <= _MAX_ROW_ERROR:
        raise Failed("equal rows of a batch have unequal results", figures)
    return figures


def _row_error(engine: Engine, name: str, output: Tensor) -> float:
    """How far rows are from the first, relative to it; infinite when one is not a number."""
    first, *others = output.float().unbind(engine.spec.batch_axes[name])
    return max(accuracy.worst_error((other,), (first,)) for other in others)


def sizes(bench: Bench) -> Figures:
    """A call of another size in between changes nothing, and a size outside the build is refused."""
    engine = bench.load("unet")
    first, second = (bench.inputs(engine, bench.sizes(i)) for i in (0, 1))
    before = engine(**first)["out_sample"].clone()
    engine(**second)
    if not before.equal(engine(**first)["out_sample"]):
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
