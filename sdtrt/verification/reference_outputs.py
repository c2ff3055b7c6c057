"""Outputs of eager PyTorch for one component: at both ends of every profile, with several inputs.

They are computed before there is an engine, and are small: the weights of the checkpoint and those of the engine are
never in memory together. Eager runs in float32 on the CPU, so a largest size is left out when an estimate says that it
takes more than a few seconds or does not fit into memory.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from sdtrt.engines import accuracy
from sdtrt.errors import VerifyError
from sdtrt.shapes.sample_inputs import sample_inputs
from sdtrt.shapes.spec import ComponentSpec, ShapeProfile
from sdtrt.verification.eager_cost import EagerCost

if TYPE_CHECKING:
    from torch import Tensor, nn

SEEDS = 3
# A size that took REPEAT_S is not run with another seed; a largest size is left out above LARGEST_S.
REPEAT_S, LARGEST_S = 2.0, 5.0


class Point(NamedTuple):
    """One size at which an engine is compared, in the symbols of its component; or recorded inputs.

    `end` is the point of the profile ("min", "opt", "max") or "recorded". `guidance_off` is the U-Net without
    classifier-free guidance: half the batch. `recorded` are inputs from the making of an image, `call` says which.
    """

    end: str
    sizes: Mapping[str, int]
    guidance_off: bool = False
    recorded: Mapping[str, Tensor] | None = None
    call: str = ""

    def inputs(self, spec: ComponentSpec, seed: int) -> dict[str, Tensor]:
        """Random inputs of this size, or the recorded ones, as the engine takes them."""
        if self.recorded is not None:
            return _as_specified(spec, self.recorded)
        tensors = sample_inputs(spec, self.sizes, seed)
        return {n: t[: len(t) // 2] for n, t in tensors.items()} if self.guidance_off else tensors

    @property
    def label(self) -> str:
        """The size, as "B=1,H=512,W=512", or the call of an image."""
        if self.recorded is not None:
            return f"an image, {self.call}"
        text = ",".join(f"{s}={n}" for s, n in self.sizes.items())
        return f"{text}, guidance off" if self.guidance_off else text


class ReferenceOutput(NamedTuple):
    """Outputs of eager PyTorch at one point, for the inputs of one seed."""

    point: Point
    seed: int
    outputs: tuple[Tensor, ...]


@dataclass(frozen=True)
class ReferenceOutputs:
    """The outputs at all points; notes by label of a point say what was left out there, and why."""

    outputs: tuple[ReferenceOutput, ...]
    notes: Mapping[str, str]


def points(spec: ComponentSpec, profiles: Sequence[ShapeProfile]) -> list[Point]:
    """Both ends and the best size of every profile, each shape once, the smaller before the larger."""
    doubled = all(t.shape[0] == "2B" for t in spec.inputs)
    by_sizes: dict[tuple[tuple[str, int], ...], list[Point]] = {}
    for end in ("min", "opt", "max"):
        for profile in profiles:
            sizes = {s: n for s, n in profile.sizes(end).items() if s in spec.symbols}
            half_batch = [Point(end, sizes, guidance_off=True)] if doubled and end == "min" else []
            by_sizes.setdefault(tuple(sizes.items()), [*half_batch, Point(end, sizes)])
    return [point for several in by_sizes.values() for point in several]


def compute(
    module: nn.Module,
    spec: ComponentSpec,
    profiles: Sequence[ShapeProfile],
    *,
    full: bool = False,
    recorded_inputs: Mapping[str, Mapping[str, Tensor]] | None = None,
    report: Callable[[str, float], None] = lambda label, share: None,
) -> ReferenceOutputs:
    """Run eager PyTorch at all points of the profiles and at recorded inputs.

    Args:
        module: the component's module in float32.
        spec: the component.
        profiles: the sizes of the build.
        full: run the largest sizes even when the estimate says that they are too large.
        recorded_inputs: inputs by call of an image; calls that lack an input of the spec are left out.
        report: receives a label and the share of the points that is done, 0 to 1.

    Raises:
        VerifyError: the module gives NaN or Inf, so the checkpoint is at fault.
    """
    cost, outputs, notes = EagerCost(), list[ReferenceOutput](), dict[str, str]()
    chosen, names = points(spec, profiles), {t.name for t in spec.inputs}
    for call, tensors in (recorded_inputs or {}).items():
        if names <= tensors.keys():
            chosen.append(Point("recorded", {}, recorded=tensors, call=call))
    for number, point in enumerate(chosen):
        label, seeds = point.label, SEEDS if point.recorded is None else 1
        report(f"running eager at {label}", number / len(chosen))
        if point.end == "max" and not full and (reason := cost.too_large(point.sizes, LARGEST_S)):
            notes[label] = f"not compared at {label}: {reason}"
            continue
        started = time.perf_counter()
        for seed in range(seeds):
            unmeasured = point.guidance_off or point.recorded
            with nullcontext() if unmeasured else cost.measuring(module, point.sizes):
                outputs.append(ReferenceOutput(point, seed, _outputs(module, spec, point, seed)))
            spent = time.perf_counter() - started
            if spent > REPEAT_S and seed + 1 < seeds:
                notes[label] = f"compared at {label} with {seed + 1} of {seeds} inputs, in {spent:.1f} s"
                break
    return ReferenceOutputs(tuple(outputs), notes)


def _outputs(module: Any, spec: ComponentSpec, point: Point, seed: int) -> tuple[Tensor, ...]:
    outputs = accuracy.expected(module, point.inputs(spec, seed))
    if not all(t.isfinite().all() for t in outputs):
        raise VerifyError(
            f"eager PyTorch gives NaN or Inf for {spec.name}, in float32",
            slug="verify-eager",
            received=f"{point.label}, weights of {spec.attribute}",
            expected="finite results",
            hint="the checkpoint is damaged, or was trained wrongly: try it in diffusers",
        )
    return outputs


def _as_specified(spec: ComponentSpec, recorded: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inputs of the spec, rounded to its types, and a timestep for every sample."""
    import torch

    tensors = {t.name: recorded[t.name].to(getattr(torch, t.dtype)) for t in spec.inputs}
    batch = max(len(t) for t in tensors.values() if t.dim())
    return {n: t.reshape(-1).expand(batch) if n == "timestep" and t.numel() == 1 else t for n, t in tensors.items()}
