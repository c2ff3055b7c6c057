"""The analysis: what was read, once, and what every table, plot, rule and renderer takes.

Capture, then a saved session, then pure renderers: an `Analysis` is made from files, computes its tables when they are
first asked for, and never changes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import pandas as pd

from sdtrt.analysis.device_peaks import DevicePeaks, peaks_of
from sdtrt.analysis.findings import Finding, findings
from sdtrt.analysis.frame import to_frame
from sdtrt.analysis.image_budget import Budget, budget
from sdtrt.analysis.memory import MemoryRow, memory
from sdtrt.analysis.summary import Summary, summarize
from sdtrt.bundle.manifest import Manifest
from sdtrt.plan.image_timing import ImageRun
from sdtrt.plan.layers import Plan


@dataclass(frozen=True)
class Analysis:
    """Plans with what belongs to them: the bundle's manifest, a timed image, and the device's peaks."""

    plans: tuple[Plan, ...]
    manifest: Manifest | None = None
    run: ImageRun | None = None
    peaks: DevicePeaks | None = None

    @cached_property
    def frame(self) -> pd.DataFrame:
        """The layer table of all plans."""
        return to_frame(self.plans, self.peaks)

    def peaks_of(self, plan: Plan) -> DevicePeaks | None:
        """What the device of `plan` can do: as given, else as known by its name."""
        return self.peaks or peaks_of(plan.device, plan.metadata)

    @cached_property
    def summaries(self) -> tuple[Summary, ...]:
        """Totals of each plan."""
        return tuple(map(summarize, self.plans))

    @cached_property
    def memory(self) -> tuple[MemoryRow, ...]:
        """What the engines take, by profile; of engines that are no bundle's nothing is known."""
        return memory(self.plans, self.manifest)

    @cached_property
    def budget(self) -> Budget:
        """Where the time of one image goes."""
        return budget(self.plans, self.run)

    @cached_property
    def findings(self) -> tuple[Finding, ...]:
        """What the rules found, the dearest first."""
        return findings(self.plans, self.frame, self.budget, self.peaks_of)
