"""What eager PyTorch answers for one component: at both ends of every profile, and with several inputs.

It is asked before there is an engine, and its answers are small: the checkpoint's weights and the engine's are never in
memory together. Eager runs in float32 on the CPU, so the largest sizes are asked for only where an estimate says that
they take a few seconds and fit into memory.
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
from sdtrt.verification.eager_cost import Effort

if TYPE_CHECKING:
    from torch import Tensor, nn

SEEDS = 3
# A size at which this much time was spent is not compared with another seed; a largest size beyond that is left out.
REPEAT_S, LARGEST_S = 2.0, 5.0


class Point(NamedTuple):
    """One size at which an engine is compared, in the symbols that its component knows.

    `alone` is the U-Net without guidance: half the batch. `given` are real inputs, from the making of an image.
    """

    end: str
    sizes: Mapping[str, int]
    alone: bool = False
    given: Mapping[str, Tensor] | None = None
    when: str = ""

    def inputs(self, spec: ComponentSpec, seed: int) -> dict[str, Tensor]:
        """Random inputs of this size, or those that were given, as the engine gets them."""
        if self.given is not None:
            return _as_specified(spec, self.given)
        drawn = sample_inputs(spec, self.sizes, seed)
        return {n: t[: len(t) // 2] for n, t in drawn.items()} if self.alone else drawn

    @property
    def label(self) -> str:
        """As "B=1,H=512,W=512", or which part of which image."""
        if self.given is not None:
            return f"an image, {self.when}"
        text = ",".join(f"{s}={n}" for s, n in self.sizes.items())
        return f"{text}, guidance off" if self.alone else text


class ReferenceOutput(NamedTuple):
    """Eager's outputs at one point for the inputs of one seed."""

    point: Point
    seed: int
    outputs: tuple[Tensor, ...]


@dataclass(frozen=True)
class ReferenceOutputs:
    """All answers, and by label of a point what was left out there and why."""

    given: tuple[ReferenceOutput, ...]
    notes: Mapping[str, str]


def points(spec: ComponentSpec, profiles: Sequence[ShapeProfile]) -> list[Point]:
    """Both ends and the best size of every profile, each shape once, the smaller before the larger."""
    doubled = all(t.shape[0] == "2B" for t in spec.inputs)
    found: dict[tuple[tuple[str, int], ...], list[Point]] = {}
    for end in ("min", "opt", "max"):
        for profile in profiles:
            sizes = {s: n for s, n in profile.sizes(end).items() if s in spec.symbols}
            alone = [Point(end, sizes, alone=True)] if doubled and end == "min" else []
            found.setdefault(tuple(sizes.items()), [*alone, Point(end, sizes, alone=False)])
    return [point for several in found.values() for point in several]


def ask(
    module: nn.Module,
    spec: ComponentSpec,
    profiles: Sequence[ShapeProfile],
    *,
    full: bool = False,
    given: Mapping[str, Mapping[str, Tensor]] | None = None,
    report: Callable[[str, float], None] = lambda label, share: None,
) -> ReferenceOutputs:
    """Ask `module`, in float32, at all points and at the inputs `given`; `full` also at those estimated too large.

    Raises VerifyError when it gives no finite result: then the checkpoint is at fault.
    """
    effort, answers, notes = Effort(), list[ReferenceOutput](), dict[str, str]()
    chosen, named = points(spec, profiles), {t.name for t in spec.inputs}
    chosen += [Point("given", {}, given=t, when=when) for when, t in (given or {}).items() if named <= t.keys()]
    for number, point in enumerate(chosen):
        name = point.label
        report(f"running eager at {name}", number / len(chosen))
        if point.end == "max" and not full and (why := effort.too_large(point.sizes, LARGEST_S)):
            notes[name] = f"not compared at {name}: {why}"
            continue
        started = time.perf_counter()
        for seed in range(SEEDS if point.given is None else 1):
            with nullcontext() if point.alone or point.given else effort.measuring(module, point.sizes):
                answers.append(ReferenceOutput(point, seed, _outputs(module, spec, point, seed)))
            spent = time.perf_counter() - started
            if spent > REPEAT_S and seed + 1 < SEEDS and point.given is None:
                notes[name] = f"compared at {name} with {seed + 1} of {SEEDS} inputs, in {spent:.1f} s"
                break
    return ReferenceOutputs(tuple(answers), notes)


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


def _as_specified(spec: ComponentSpec, given: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inputs of the spec, rounded to its types, and a timestep for every sample."""
    import torch

    tensors = {t.name: given[t.name].to(getattr(torch, t.dtype)) for t in spec.inputs}
    batch = max(len(t) for t in tensors.values() if t.dim())
    return {n: t.reshape(-1).expand(batch) if n == "timestep" and t.numel() == 1 else t for n, t in tensors.items()}
