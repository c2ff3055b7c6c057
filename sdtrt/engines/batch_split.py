"""A call in parts: rows taken apart before the engine runs and joined again, and what was counted meanwhile."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from sdtrt.shapes.profile_selection import Fit
from sdtrt.shapes.spec import ShapeProfile, TensorSpec

if TYPE_CHECKING:
    from torch import Tensor


def apart(specs: Sequence[TensorSpec], tensors: Mapping[str, Tensor], rows: Sequence[int]) -> list[dict[str, Tensor]]:
    """The inputs of each part: timesteps and conditioning go along with their rows."""
    parts: list[dict[str, Tensor]] = [{} for _ in rows]
    for t in specs:
        axis = _batch_axis(t)
        pieces = [tensors[t.name]] * len(rows) if axis is None else tensors[t.name].split(list(rows), axis)
        for part, piece in zip(parts, pieces, strict=True):
            part[t.name] = piece.contiguous()
    return parts


def joined(specs: Sequence[TensorSpec], parts: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The outputs of all parts as one; the batch is not always the first axis."""
    import torch

    return {t.name: torch.cat([part[t.name] for part in parts], _batch_axis(t) or 0) for t in specs}


def _batch_axis(tensor: TensorSpec) -> int | None:
    return next((axis for axis, expr in tensor.axes().items() if expr.symbol == "B"), None)


class Usage:
    """How the calls so far were served; counted from any thread."""

    def __init__(self, profiles: Sequence[ShapeProfile]) -> None:
        self.profiles = tuple(profiles)
        self.served: Counter[int] = Counter()
        self.split_calls = self.parts = self.eager_calls = 0
        self._lock = threading.Lock()

    def count(self, fit: Fit | None) -> None:
        """A call that was served so; None for one that ran the checkpoint's module."""
        with self._lock:
            if fit is None:
                self.eager_calls += 1
                return
            self.served[fit.profile] += 1
            if fit.rows:
                self.split_calls += 1
                self.parts += len(fit.rows)

    def notes(self) -> tuple[str, ...]:
        """One line for each thing that a user should know; the profile only where there is a choice."""
        found = []
        if len(self.profiles) > 1:
            found += [f"{calls(n)} in profile {self.profiles[i]}" for i, n in sorted(self.served.items())]
        if self.split_calls:
            found.append(f"{calls(self.split_calls)} with a larger batch than was built, run in {self.parts} parts")
        if self.eager_calls:
            found.append(f"{calls(self.eager_calls)} of a size that was not built, run by the checkpoint's own module")
        return tuple(found)


def calls(count: int) -> str:
    """A number of calls."""
    return f"{count} call" if count == 1 else f"{count} calls"
