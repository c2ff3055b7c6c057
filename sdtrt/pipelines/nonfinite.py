"""NaN and Inf at run time: reported with the denoising step in which they arise, instead of a black image.

Each call of an engine is recorded as one number per sample and output tensor: the sum of its values, which is NaN or
Inf when a value is. On a CPU the sums are checked at once, and the inputs only when a sum is not finite. On a GPU the
sums stay on the device, so that no step waits, and are checked before an image is decoded and when the pipeline's call
ends. The inputs are gone by then, so they are summed too: the prompt's embeddings, the same in every step, only once.
"""

from __future__ import annotations

import threading
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal
from weakref import ref

from sdtrt.errors import NonFiniteError, NonFiniteWarning

if TYPE_CHECKING:
    from torch import Tensor

OnNonFinite = Literal["raise", "warn", "ignore"]
# Unchecked calls that a thread keeps at most, as when a U-Net is called without a pipeline.
_MAX_PENDING = 256


@dataclass(frozen=True)
class _Call:
    """One call of an engine: sums of its outputs, and of its inputs or, on a CPU, the inputs, by tensor name."""

    component: str
    half: bool
    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]
    timestep: Tensor | None


@dataclass(frozen=True)
class _Summed:
    """The sums of a tensor, with its version when it was summed; the tensor is not kept alive."""

    tensor: ref[Tensor]
    version: int | None
    sums: Tensor


class _ThreadState(threading.local):
    """The calls of one thread that are not checked yet, and the step of its image."""

    def __init__(self) -> None:
        self.pending: list[_Call] = []
        self.summed: dict[tuple[str, str], _Summed] = {}
        self.reset()

    def reset(self) -> None:
        """Make the next step the first of an image."""
        self.step, self.timestep, self.reported = 0, float("-inf"), False

    def input_sums(self, component: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Sums of an engine's inputs; a tensor that is the unchanged one of the last call is not summed again."""
        sums = {}
        for name, tensor in _summable(tensors).items():
            last, version = self.summed.get((component, name)), _version(tensor)
            if last is None or last.tensor() is not tensor or version is None or version != last.version:
                last = self.summed[component, name] = _Summed(ref(tensor), version, _sum(tensor))
            sums[name] = last.sums
        return sums


class NonFiniteDetector:
    """Records the engine calls of one pipeline and checks them; each thread has its own calls and steps."""

    def __init__(self, on_nonfinite: OnNonFinite = "raise") -> None:
        self.on_nonfinite = on_nonfinite
        self._thread = _ThreadState()

    def record(
        self,
        component: str,
        inputs: dict[str, Tensor],
        outputs: dict[str, Tensor],
        timestep: Tensor | None = None,
        *,
        half: bool,
        asynchronous: bool,
    ) -> None:
        """Record a call of an engine, and check it at once unless it is asynchronous.

        Args:
            component: the engine's name.
            inputs: tensors (samples, ...) that the engine got, by name.
            outputs: tensors (samples, ...) that it returned, by name.
            timestep: of a denoising step, a scalar; None for other calls.
            half: whether the engine computes in half precision; the error's hint depends on it.
            asynchronous: whether reading a number waits for the device: then the call is checked later.

        Raises:
            NonFiniteError: a recorded output is not finite, and `on_nonfinite` is "raise".
        """
        if self.on_nonfinite == "ignore":
            return
        kept = self._thread.input_sums(component, inputs) if asynchronous else inputs
        sums = {name: _sum(tensor) for name, tensor in _summable(outputs).items()}
        self._thread.pending.append(_Call(component, half, kept, sums, timestep))
        if not asynchronous or len(self._thread.pending) >= _MAX_PENDING:
            self.check()

    def check(self) -> None:
        """Check all recorded calls of this thread, waiting for the device; raise or warn for the first bad one."""
        thread = self._thread
        pending, thread.pending = thread.pending, []
        for call in pending:
            if call.timestep is not None:
                timestep = float(call.timestep)
                if timestep > thread.timestep:  # timesteps fall during an image: a rise is the next one
                    thread.reset()
                thread.step, thread.timestep = thread.step + 1, timestep
            if not thread.reported and not all(_finite(s) for s in call.outputs.values()):
                thread.reported = True
                self._report(_error(call, thread.step))

    def finish(self) -> None:
        """Check, and make the next step the first of another image."""
        try:
            self.check()
        finally:
            self._thread.reset()

    def _report(self, error: NonFiniteError) -> None:
        if self.on_nonfinite == "raise":
            self._thread.reset()
            raise error
        warnings.warn(str(error), NonFiniteWarning, stacklevel=2)


def _finite(values: Tensor) -> bool:
    return bool(values.isfinite().all())


def _summable(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {n: t for n, t in tensors.items() if t.is_floating_point() and t.dim() > 1}


def _sum(tensor: Tensor) -> Tensor:
    """Sums (samples,) in one launch; in float32 a sum of half precision numbers does not overflow by itself."""
    import torch

    return torch.sum(tensor.detach().flatten(1), 1, dtype=torch.float32)


def _version(tensor: Tensor) -> int | None:
    """How often a tensor was changed in place; None for one of inference mode, which has no such count."""
    return None if tensor.is_inference() else tensor._version


def _error(call: _Call, step: int) -> NonFiniteError:
    name = call.component
    sums = next(s for s in call.outputs.values() if not _finite(s))
    samples = (~sums.isfinite()).nonzero().flatten().tolist()
    timestep = None if call.timestep is None else float(call.timestep)
    where = "" if timestep is None else f" at step {step} (timestep {timestep:g})"
    inputs = [n for n, s in call.inputs.items() if not _finite(s)]
    error = NonFiniteError(
        f"{name} gave NaN or Inf{where}" + (f": its input {inputs[0]} already had it" if inputs else ""),
        received=f"samples {', '.join(str(s + 1) for s in samples)} of {len(sums)}",
        expected="finite numbers",
        hint=_hint(call.half, inputs),
    )
    error.component, error.timestep = name, timestep
    error.step = None if timestep is None else step
    return error


def _hint(half: bool, inputs: list[str]) -> str:
    if inputs == ["encoder_hidden_states"]:
        return "look at the prompt's embeddings: those that were given, or the text encoder's"
    if inputs:
        return "look at what made it: the scheduler, a callback, the start latents or the engine before"
    if half:
        return (
            "this prompt overflows half precision: rebuild with the modules that overflow in float32, "
            "`float32: [...]` in the config, or with --precision fp32 (docs/black-images.md)"
        )
    return "compare the bundle with its checkpoint: sdtrt verify BUNDLE (docs/black-images.md)"
