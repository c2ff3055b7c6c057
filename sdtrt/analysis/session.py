"""Analysis: the plans that were read, the tables made of them, and the input of every plot, rule and renderer.

Capture, then a saved session, then pure renderers: an `Analysis` is made from files, computes its tables on first
access, and never changes.
"""

from dataclasses import dataclass
from functools import cached_property

import pandas as pd

from sdtrt.analysis.device_peaks import DevicePeaks, peaks_of
from sdtrt.analysis.findings import Finding, findings
from sdtrt.analysis.frame import to_frame
from sdtrt.analysis.image_budget import Budget, budget
from sdtrt.analysis.memory import MemoryRow, memory
from sdtrt.analysis.rule_support.view import View
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
        """Findings of the rules, the most expensive first."""
        views, start = [], 0
        for plan in self.plans:
            rows = self.frame.iloc[start : start + len(plan.layers)]
            start += len(plan.layers)
            calls = self.budget.calls_of(plan.component)
            # One call that was assumed and not counted may be one of many steps.
            known_calls = None if self.budget.assumed and calls == 1 else calls
            views.append(View(plan, rows, self.peaks_of(plan), known_calls))
        return findings(views, self.budget)
