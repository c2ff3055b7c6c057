"""Memory tables of `sdtrt build`: the estimate before it and the record after it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sdtrt.cli.console import format_bytes, out, table

if TYPE_CHECKING:
    from sdtrt.builder.build_plan import BuildPlan
    from sdtrt.bundle.manifest import Manifest, ProfileMemory

FIGURES = ("activations", "at most", "context")


def show_estimated_memory(plan: BuildPlan, bundle: Path) -> None:
    """Print the estimate before a build, from the engines or graphs of an earlier build in the same folder."""
    from sdtrt.builder import memory_estimate
    from sdtrt.bundle import staging

    present = staging.open_existing(bundle)
    estimates = {s.spec.name: memory_estimate.expected(s.spec, plan.profiles, present) for s in plan.steps}
    if all(m.activation_opt_bytes is None and m.context_bytes is None for ms in estimates.values() for m in ms):
        out.print("memory beside the weights: unknown, there is no graph yet")
        return
    grid = table("memory of", *FIGURES, numbers=FIGURES)
    for name, profiles in estimates.items():
        for label, figures in _rows(name, profiles):
            grid.add_row(label, *figures)
    out.print(grid)


def show_recorded_memory(manifest: Manifest) -> None:
    """Print activations and contexts per profile, file sizes, and the peak memory of the process during each build."""
    totals = ("files", "build's peak")
    grid = table("memory of", *FIGURES, *totals, numbers=(*FIGURES, *totals))
    for name, component in manifest.components.items():
        memory = component.memory
        file_bytes = sum(file.bytes for file in component.files.values())
        cells = [format_bytes(file_bytes), format_bytes(memory.build_peak_bytes if memory else None)]
        for label, figures in _rows(name, memory.profiles if memory else ()):
            grid.add_row(label, *figures, *cells)
            cells = ["", ""]
    out.print(grid)


def _rows(name: str, profiles: Sequence[ProfileMemory]) -> Iterator[tuple[str, list[str]]]:
    """A row per profile: activations at its optimum and at its maximum, and the engine's context memory."""
    for number, m in enumerate(profiles, 1):
        figures = [format_bytes(b) for b in (m.activation_opt_bytes, m.activation_max_bytes, m.context_bytes)]
        yield (name if len(profiles) == 1 else f"{name}, profile {number}"), figures
