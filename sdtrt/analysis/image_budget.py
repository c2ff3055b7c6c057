"""Where the time of one image goes: every engine times its calls, and what is left of the wall clock.

With a recorded image (`sdtrt.plan.image_timing.ImageRun`) calls and times are those that were measured. Without one,
calls are assumed as a text-to-image pipeline makes them, the times are those of the plans, and what lies between
engines is not known.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from sdtrt.plan.image_timing import ImageRun
from sdtrt.plan.layers import Plan
from sdtrt.plan.sums import sum_complete, sum_known

# diffusers' default for Stable Diffusion.
ASSUMED_STEPS = 50
DENOISERS = frozenset({"unet", "transformer"})
REST = "scheduler and gaps"


@dataclass(frozen=True)
class BudgetRow:
    """One stage of an image. By the plan, one call takes `profiled_ms` of wall clock and its layers `layers_ms`."""

    stage: str
    calls: int
    per_call_ms: float | None
    total_ms: float | None
    share_pct: float | None = None
    note: str = ""
    profiled_ms: float | None = None
    layers_ms: float | None = None

    @property
    def slowdown(self) -> float:
        """How many times as long a call of the image took as the profiled one; 1 where that is not known.

        An image may be made at other sizes than those of the profile, or several at once.
        """
        profiled = self.profiled_ms or self.layers_ms
        return self.per_call_ms / profiled if self.per_call_ms and profiled else 1.0


@dataclass(frozen=True)
class Budget:
    """The stages of one pipeline call in their order; `wall_ms` is measured, and None when the calls are assumed.

    `whole` is what the total is of: an image, or one run of each engine where no engine denoises.
    """

    rows: tuple[BudgetRow, ...]
    wall_ms: float | None
    steps: int
    assumed: bool
    images: int = 1
    whole: str = "image"

    @property
    def total_ms(self) -> float | None:
        """The wall time, else the sum of the stages; None when the time of a stage that runs is not known."""
        if self.wall_ms is not None:
            return self.wall_ms
        totals = [row.total_ms for row in self.rows if row.calls]
        return sum_complete(totals) if totals else None

    @property
    def total_of(self) -> str:
        """What the total is of: "image", "run", or "call for 8 images"."""
        return self.whole if self.images == 1 else f"call for {self.images} images"

    def calls_of(self, component: str) -> int:
        """How often an engine runs in one pipeline call; 0 for one that does not take part."""
        return next((row.calls for row in self.rows if row.stage == component), 0)

    def per_image(self, component: str) -> float:
        """What a profiled millisecond of an engine's layers is of an image: by its calls, as slow as these were.

        A call that makes four images counts a quarter for each.
        """
        return next((r.calls * r.slowdown for r in self.rows if r.stage == component), 0) / self.images

    def if_faster(self, component: str, percent: float) -> float | None:
        """Total time if every call of `component` took `percent` percent less."""
        row = next((row for row in self.rows if row.stage == component), None)
        if row is None or row.total_ms is None or self.total_ms is None:
            return None
        return self.total_ms - row.total_ms * percent / 100


def budget(plans: Sequence[Plan], run: ImageRun | None = None) -> Budget:
    """The budget of `plans`, from `run` where an image was timed."""
    return _assumed(plans) if run is None else _recorded(plans, run)


def assumed_calls(component: str, steps: int = ASSUMED_STEPS) -> int:
    """Calls of an engine for one text-to-image call: the denoiser's are the steps, and no image is encoded."""
    return steps if component in DENOISERS else 0 if component == "vae_encoder" else 1


def _assumed(plans: Sequence[Plan]) -> Budget:
    pipeline = any(plan.component in DENOISERS for plan in plans)
    rows = []
    for plan in plans:
        calls = assumed_calls(plan.component) if pipeline else 1
        profiled, layers = plan.wall_ms, _layers(plan)
        known = layers if profiled is None else profiled
        note = "sum of its layers, the wall time was not measured" if profiled is None and layers is not None else ""
        note = note if calls else "not called for text to image"
        total = 0.0 if not calls else None if known is None else known * calls
        rows.append(BudgetRow(plan.component, calls, known, total, None, note, profiled, layers))
    whole = sum_complete(row.total_ms for row in rows)
    steps = ASSUMED_STEPS if pipeline else 1
    return Budget(_shared(rows, whole), None, steps, assumed=True, whole="image" if pipeline else "run")


def _recorded(plans: Sequence[Plan], run: ImageRun) -> Budget:
    known = {plan.component: plan for plan in plans}
    rows = []
    for name in dict.fromkeys((*known, *run.engines)):
        calls, plan = run.engines.get(name), known.get(name)
        profiled, layers = (None, None) if plan is None else (plan.wall_ms, _layers(plan))
        note = "" if plan else "recorded, but there is no plan of it"
        if calls is None:
            rows.append(BudgetRow(name, 0, None, 0.0, None, "not called for this image", profiled, layers))
        else:
            each = calls.total_ms / calls.count
            rows.append(BudgetRow(name, calls.count, each, calls.total_ms, None, note, profiled, layers))
    rows.append(_rest(run.wall_ms - sum(row.total_ms or 0 for row in rows)))
    return Budget(_shared(rows, run.wall_ms), run.wall_ms, run.steps, assumed=False, images=run.images)


def _rest(ms: float) -> BudgetRow:
    """What the wall clock has left. Engines that ran at the same time leave nothing to subtract from."""
    if ms < 0:
        return BudgetRow(REST, 1, None, None, None, "not known: the engines' times add up to more than the wall time")
    return BudgetRow(REST, 1, ms, ms, None, "wall time less all engines")


def _shared(rows: Sequence[BudgetRow], whole: float | None) -> tuple[BudgetRow, ...]:
    if not whole:
        return tuple(rows)
    return tuple(r if r.total_ms is None else replace(r, share_pct=100 * r.total_ms / whole) for r in rows)


def _layers(plan: Plan) -> float | None:
    return sum_known(layer.time_ms for layer in plan.layers)
