"""Tables of memory: what a build is expected to need, and what was found."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sdtrt.cli.console import out, size, table

if TYPE_CHECKING:
    from sdtrt.builder.build_plan import BuildPlan
    from sdtrt.bundle.manifest import Manifest, ProfileMemory

FIGURES = ("activations", "at most", "context")


def show_expected(plan: BuildPlan, bundle: Path) -> None:
    """Before a build: figures of the bundle that is there, or of its graphs, as far as they are at hand."""
    from sdtrt.builder import memory_estimate
    from sdtrt.bundle import staging

    present = staging.open_existing(bundle)
    found = {s.spec.name: memory_estimate.expected(s.spec, plan.profiles, present) for s in plan.steps}
    if all(m.activation_opt_bytes is None and m.context_bytes is None for ms in found.values() for m in ms):
        out.print("memory beside the weights: unknown, there is no graph yet")
        return
    grid = table("memory of", *FIGURES, numbers=FIGURES)
    for name, profiles in found.items():
        for label, figures in _rows(name, profiles):
            grid.add_row(label, *figures)
    out.print(grid)


def show_found(manifest: Manifest) -> None:
    """After a build: what graphs and engines say, the files, and the peak of this process while each was built."""
    more = ("files", "build's peak")
    grid = table("memory of", *FIGURES, *more, numbers=(*FIGURES, *more))
    for name, component in manifest.components.items():
        memory = component.memory
        files = sum(file.bytes for file in component.files.values())
        once = [size(files), size(memory.build_peak_bytes if memory else None)]
        for label, figures in _rows(name, memory.profiles if memory else ()):
            grid.add_row(label, *figures, *once)
            once = ["", ""]
    out.print(grid)


def _rows(name: str, profiles: Sequence[ProfileMemory]) -> Iterator[tuple[str, list[str]]]:
    """A row per profile: activations at its best size and at its largest, and the engine's block for them."""
    for number, m in enumerate(profiles, 1):
        figures = [size(b) for b in (m.activation_opt_bytes, m.activation_max_bytes, m.context_bytes)]
        yield (name if len(profiles) == 1 else f"{name}, profile {number}"), figures
