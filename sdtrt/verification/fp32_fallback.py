"""The fallback to float32: a half precision engine that fails the component check is built again, wider in parts.

The graph is linked next to the engine until the check has passed, so nothing is exported twice.
"""

import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from sdtrt.bundle import manifest
from sdtrt.engines import Engine
from sdtrt.errors import BuildError, EngineError, VerifyError
from sdtrt.export import onnx_export
from sdtrt.graph import widen_fp32
from sdtrt.system import files
from sdtrt.verification import component_check, fp32_search
from sdtrt.verification.component_check import ComponentReport
from sdtrt.verification.reference_outputs import ReferenceOutput, ReferenceOutputs

# Builds and loads an engine from an ONNX file.
MakeEngine = Callable[[Path], Engine]
Report = Callable[[str, float], None]
BACKUP = "backup"
# The search compares at the smallest sizes that failed, or at images; the final check compares at all points.
_POINTS = 3
_SHOWN_MODULES = 2


@dataclass(frozen=True)
class VerifiedEngine:
    """An engine that passed the component check; `changes` and the graph are set when parts of it stay in float32."""

    engine: Engine
    report: ComponentReport
    changes: tuple[manifest.Change, ...] = ()
    onnx: Path | None = None


class GraphBackup:
    """A copy of the graph below `folder`, from before the backend moves the file; weights are linked, not copied.

    It makes engines with different nodes in float32. The last one stays open, since it is often the one that is kept.
    Files that are in `folder` when the backup is made stay there when an engine is removed.
    """

    def __init__(self, source: Path, folder: Path, make_engine: MakeEngine) -> None:
        self._folder, self._make_engine = folder, make_engine
        self._keep = {p.name for p in folder.iterdir()} - {"work"} | {BACKUP}
        self.path = _link_graph(source, folder / BACKUP)
        self._attempts = 0
        self._last: tuple[fp32_search.Nodes, Engine, manifest.Change] | None = None

    def write_widened(self, nodes: fp32_search.Nodes, name: str) -> tuple[Path, manifest.Change]:
        """Write the graph with `nodes` in float32 into the folder `name`; returns its path and what was changed."""
        path = _link_graph(self.path, self._folder / name)
        return path, widen_fp32.widen_file(path, lambda model: nodes)

    def engine(self, nodes: fp32_search.Nodes) -> tuple[Engine, manifest.Change]:
        """The engine with `nodes` in float32, in place of the one before, and what was changed in its graph."""
        if self._last is not None and self._last[0] == nodes:
            return self._last[1:]
        if self._last is not None:
            self._last[1].close()
            self._last = None
        for path in self._folder.iterdir():
            if path.name not in self._keep:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        path, change = self.write_widened(nodes, "work")
        self._last = nodes, self._make_engine(path), change
        return self._last[1:]

    def error(self, nodes: fp32_search.Nodes, failing: Sequence[ReferenceOutput], report: Report) -> float:
        """Worst error with `nodes` in float32 at the points that failed; infinite without a build or a run."""
        self._attempts += 1
        modules = fp32_search.modules(nodes)
        more = f" and {len(modules) - _SHOWN_MODULES} more" if len(modules) > _SHOWN_MODULES else ""
        where = ", ".join(modules[:_SHOWN_MODULES]) + more
        report(f"differs from eager, try {self._attempts} in float32: {where}", 0.5)
        try:
            engine, _ = self.engine(nodes)
            errors = [component_check.relative_error(engine, reference) for reference in failing]
        except (BuildError, EngineError):
            return math.inf
        return max((e for e in errors if e is not None), default=math.inf)


def verify_or_widen(
    engine: Engine, references: ReferenceOutputs, limit: float, backup: GraphBackup | None, report: Report
) -> VerifiedEngine:
    """Check an engine against eager PyTorch; one that fails is built again with nodes in float32.

    Args:
        engine: the engine of the component; it is closed when it fails.
        references: the outputs of eager PyTorch.
        limit: largest relative error that passes.
        backup: the engine's graph; None when the engine cannot be built again.
        report: receives a label and the share done, 0 to 1.

    Raises:
        VerifyError: no engine is near enough to eager; the error lists what was tried.
    """
    first = component_check.check_component(engine, references, limit, report)
    if first.passed:
        return VerifiedEngine(engine, first)
    engine.close()
    if backup is None:
        raise _differs(engine, first, ())
    failing = first.failing[:_POINTS]
    inputs = [reference.point.inputs(engine.spec, reference.seed) for reference in failing]
    trial = partial(backup.error, failing=failing, report=report)
    region = fp32_search.search(backup.path, inputs, trial, first.error, limit)
    if not region.nodes:
        raise _differs(engine, first, region.notes)
    engine, change = backup.engine(region.nodes)
    second = component_check.check_component(engine, references, limit, report)
    if not second.passed:
        engine.close()
        raise _differs(engine, second, region.notes)
    graph, _ = backup.write_widened(region.nodes, f"{BACKUP}/widened")
    return VerifiedEngine(engine, second, (change.model_copy(update={"notes": region.notes}),), graph)


def _differs(engine: Engine, report: ComponentReport, tried: Sequence[str]) -> VerifyError:
    return VerifyError(
        f"the engine of {engine.spec.name} differs from eager PyTorch",
        slug="verify-component",
        received="; ".join((str(report), *tried)),
        expected=f"relative error of at most {report.limit:g}",
        hint="build with --precision fp32, or with fewer passes, and report what helped",
    )


def _link_graph(path: Path, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in (path.name, onnx_export.WEIGHTS):
        if (source := path.with_name(name)).exists():
            files.link(source, folder / name)
    return folder / path.name
