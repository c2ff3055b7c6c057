"""A component that fails the gate in half precision is built again, with the parts in float32 that it needs.

The graph is kept back beside the engine until the gate has passed, so nothing is exported twice.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sdtrt.bundle import manifest
from sdtrt.errors import BuildError, EngineError, VerifyError
from sdtrt.export import onnx_export
from sdtrt.graph import widen_fp32
from sdtrt.shapes.spec import ComponentSpec
from sdtrt.system import files
from sdtrt.verification import component_check, fp32_search
from sdtrt.verification.reference_outputs import ReferenceOutput, ReferenceOutputs

if TYPE_CHECKING:
    from sdtrt.engines import Engine

Make = Callable[[Path], "Engine"]
Report = Callable[[str, float], None]
SPARE = "spare"
# The search judges by the smallest sizes that failed, or by images; the gate then judges by all.
_POINTS = 3


@dataclass(frozen=True)
class VerifiedEngine:
    """An engine that passed the gate; with `changes` and the graph when parts of it stay in float32."""

    engine: Engine
    verdict: component_check.ComponentReport
    changes: tuple[manifest.Change, ...] = ()
    onnx: Path | None = None


class GraphBackup:
    """A graph kept back below `folder` while a backend takes its file; the weights are linked, not copied.

    What lies in `folder` by then is left alone by all that follows.
    """

    def __init__(self, source: Path, folder: Path) -> None:
        self._folder = folder
        self._kept = {p.name for p in folder.iterdir()} - {"work"} | {SPARE}
        self._path = _linked(source, folder / SPARE)

    @property
    def path(self) -> Path:
        """The ONNX file."""
        return self._path

    def widened(self, nodes: fp32_search.Nodes, name: str) -> tuple[Path, manifest.Change]:
        """Write the graph with `nodes` in float32 into the folder `name`, and say what was changed."""
        path = _linked(self._path, self._folder / name)
        return path, widen_fp32.widen_file(path, lambda model: nodes)

    def clear(self) -> None:
        """Remove the engine that was built from it."""
        for path in self._folder.iterdir():
            if path.name not in self._kept:
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def checked(
    engine: Engine, answers: ReferenceOutputs, limit: float, spare: GraphBackup | None, make: Make, report: Report
) -> VerifiedEngine:
    """Judge `engine` by eager's answers; one that fails is made anew with islands where its graph was kept.

    Raises VerifyError with what was tried when no engine is near enough to eager.
    """
    spec = engine.spec
    verdict = component_check.judge(engine, answers, limit, report)
    if verdict.passed:
        return VerifiedEngine(engine, verdict)
    engine.close()
    if spare is None:
        raise failed(spec, verdict, ())
    tries = _Attempts(spare, make, verdict.failing[:_POINTS], report)
    inputs = [answer.point.inputs(spec, answer.seed) for answer in tries.failing]
    finding = fp32_search.search(spare.path, inputs, tries.error, verdict.error, limit)
    if not finding.nodes:
        raise failed(spec, verdict, finding.notes)
    engine, change = tries.engine(finding.nodes)
    again = component_check.judge(engine, answers, limit, report)
    if not again.passed:
        engine.close()
        raise failed(spec, again, finding.notes)
    graph, _ = spare.widened(finding.nodes, f"{SPARE}/widened")
    return VerifiedEngine(engine, again, (change.model_copy(update={"notes": finding.notes}),), graph)


def failed(spec: ComponentSpec, verdict: component_check.ComponentReport, tried: Sequence[str]) -> VerifyError:
    """The error of a component that is too far from eager, with what was tried against it."""
    return VerifyError(
        f"the engine of {spec.name} differs from eager PyTorch",
        slug="verify-component",
        received="; ".join((str(verdict), *tried)),
        expected=f"relative error of at most {verdict.limit:g}",
        hint="build with --precision fp32, or with fewer passes, and report what helped",
    )


class _Attempts:
    """Engines with different islands; the last one stays open, since it is often the one that is kept."""

    def __init__(self, spare: GraphBackup, make: Make, failing: Sequence[ReferenceOutput], report: Report) -> None:
        self._spare, self._make, self._report = spare, make, report
        self.failing = failing
        self._count = 0
        self._last: tuple[fp32_search.Nodes, Engine, manifest.Change] | None = None

    def error(self, nodes: fp32_search.Nodes) -> float:
        """Worst error at the points that failed; infinite when there is no engine."""
        self._count += 1
        where = fp32_search.shown(fp32_search.modules(nodes), 2)
        self._report(f"differs from eager, try {self._count} in float32: {where}", 0.5)
        try:
            engine, _ = self.engine(nodes)
            errors = [component_check.error(engine, answer) for answer in self.failing]
        except (BuildError, EngineError):
            return math.inf
        return max((e for e in errors if e is not None), default=math.inf)

    def engine(self, nodes: fp32_search.Nodes) -> tuple[Engine, manifest.Change]:
        """The engine with `nodes` in float32, and what was changed in its graph."""
        if self._last is not None and self._last[0] == nodes:
            return self._last[1:]
        if self._last is not None:
            self._last[1].close()
            self._last = None
        self._spare.clear()
        path, change = self._spare.widened(nodes, "work")
        self._last = nodes, self._make(path), change
        return self._last[1:]


def _linked(path: Path, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in (path.name, onnx_export.WEIGHTS):
        if (source := path.with_name(name)).exists():
            files.link(source, folder / name)
    return folder / path.name
