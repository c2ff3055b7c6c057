"""NaN and Inf at run time: reported with the step at which they arose, instead of a black image.

Every call of an engine leaves one number per sample for each tensor that it gave: the sum of its values, which is NaN
or Inf when one value is. On a CPU the numbers are looked at at once, and what the engine took only when one is bad. On
a GPU they stay there, so that no step waits for one, until an image is decoded or the pipeline's call ends. What the
engine took is gone by then and is summed too: a prompt, which comes again in every step, only once.
"""

from __future__ import annotations

import threading
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal
from weakref import ref

from sdtrt.errors import NonFiniteError, NonFiniteWarning

if TYPE_CHECKING:
    from torch import Tensor

OnNonFinite = Literal["raise", "warn", "ignore"]
# Steps that nobody has looked at, as when a U-Net is called by hand: more are not kept.
_MOST = 256


@dataclass(frozen=True)
class _Call:
    """What an engine gave and took, by tensor name: sums, each (samples,), or on a CPU the tensors that it took."""

    component: str
    half: bool
    given: dict[str, Tensor]
    made: dict[str, Tensor]
    timestep: Any


@dataclass(frozen=True)
class _Summed:
    """A tensor as it was when it was summed; it is not kept alive for that."""

    tensor: ref[Tensor]
    changes: int | None
    sums: Tensor


class _Calls(threading.local):
    """A pipeline may be called from several threads: each has its own steps."""

    def __init__(self) -> None:
        self.waiting: list[_Call] = []
        self.summed: dict[tuple[str, str], _Summed] = {}
        self.reset()

    def reset(self) -> None:
        """The next step is the first of an image."""
        self.step, self.timestep, self.told = 0, float("-inf"), False

    def sums(self, component: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Sums of what the engine took, anew only where a tensor is not that of its last call."""
        found = {}
        for name, tensor in _summable(tensors).items():
            known, changes = self.summed.get((component, name)), _changes(tensor)
            if known is None or known.tensor() is not tensor or changes is None or changes != known.changes:
                known = self.summed[component, name] = _Summed(ref(tensor), changes, _sum(tensor))
            found[name] = known.sums
        return found


class NonFiniteDetector:
    """Watches the engines of one pipeline."""

    def __init__(self, on_nonfinite: OnNonFinite = "raise") -> None:
        self.on_nonfinite = on_nonfinite
        self._calls = _Calls()

    def saw(
        self,
        component: str,
        given: dict[str, Tensor],
        made: dict[str, Tensor],
        timestep: Tensor | None = None,
        *,
        half: bool,
        waits: bool,
    ) -> None:
        """Note a call; `timestep` is that of a denoising step, `half` that the engine is one of half precision.

        Where reading a number `waits` for the device it is left for later. Raises NonFiniteError, or warns, otherwise.
        """
        if self.on_nonfinite == "ignore":
            return
        taken = self._calls.sums(component, given) if waits else given
        sums = {name: _sum(tensor) for name, tensor in _summable(made).items()}
        self._calls.waiting.append(_Call(component, half, taken, sums, timestep))
        if not waits or len(self._calls.waiting) >= _MOST:
            self.look()

    def look(self) -> None:
        """Look at all calls of this thread so far; waits for the device. Tells of the first that is not finite."""
        mine = self._calls
        waiting, mine.waiting = mine.waiting, []
        for call in waiting:
            if call.timestep is not None:
                now = float(call.timestep)
                if now > mine.timestep:  # timesteps fall during an image: a rise is the next one
                    mine.reset()
                mine.step, mine.timestep = mine.step + 1, now
            if not mine.told and not all(_finite(s) for s in call.made.values()):
                mine.told = True
                self._tell(_error(call, mine.step))

    def finish(self) -> None:
        """Look, and take the next step for the first of another image."""
        try:
            self.look()
        finally:
            self._calls.reset()

    def _tell(self, error: NonFiniteError) -> None:
        if self.on_nonfinite == "raise":
            self._calls.reset()
            raise error
        warnings.warn(str(error), NonFiniteWarning, stacklevel=2)


def _finite(values: Tensor) -> bool:
    return bool(values.isfinite().all())


def _summable(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {n: t for n, t in tensors.items() if t.is_floating_point() and t.dim() > 1}


def _sum(tensor: Tensor) -> Tensor:
    """One launch; in float32 a sum of half precision numbers does not overflow by itself."""
    import torch

    return torch.sum(tensor.detach().flatten(1), 1, dtype=torch.float32)


def _changes(tensor: Tensor) -> int | None:
    """How often it was changed in place; None for a tensor of inference mode, which has no such count."""
    return None if tensor.is_inference() else tensor._version


def _error(call: _Call, step: int) -> NonFiniteError:
    name = call.component
    bad = next(s for s in call.made.values() if not _finite(s))
    samples = (~bad.isfinite()).nonzero().flatten().tolist()
    timestep = None if call.timestep is None else float(call.timestep)
    where = "" if timestep is None else f" at step {step} (timestep {timestep:g})"
    given = [n for n, s in call.given.items() if not _finite(s)]
    error = NonFiniteError(
        f"{name} gave NaN or Inf{where}" + (f": its input {given[0]} already had it" if given else ""),
        received=f"samples {', '.join(str(s + 1) for s in samples)} of {len(bad)}",
        expected="finite numbers",
        hint=_hint(call.half, given),
    )
    error.component, error.timestep = name, timestep
    error.step = None if timestep is None else step
    return error


def _hint(half: bool, given: list[str]) -> str:
    if given == ["encoder_hidden_states"]:
        return "look at the prompt's embeddings: those that were given, or the text encoder's"
    if given:
        return "look at what made it: the scheduler, a callback, the start latents or the engine before"
    if half:
        return (
            "this prompt overflows half precision: rebuild with the modules that overflow in float32, "
            "`float32: [...]` in the config, or with --precision fp32 (docs/black-images.md)"
        )
    return "compare the bundle with its checkpoint: sdtrt verify BUNDLE (docs/black-images.md)"
