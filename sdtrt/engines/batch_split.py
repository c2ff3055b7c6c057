"""A batch that is larger than was built: its rows are split before the engine runs and concatenated afterwards."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from sdtrt.shapes.profile_selection import ProfileChoice
from sdtrt.shapes.spec import ComponentSpec, ShapeProfile

if TYPE_CHECKING:
    from torch import Tensor


def split_batch(spec: ComponentSpec, tensors: Mapping[str, Tensor], rows: Sequence[int]) -> list[dict[str, Tensor]]:
    """The inputs of each part, `rows` of the batch each; an input without a batch axis is the same in all parts."""
    parts: list[dict[str, Tensor]] = [{} for _ in rows]
    for name, tensor in tensors.items():
        axis = spec.batch_axes.get(name)
        pieces = [tensor] * len(rows) if axis is None else tensor.split(list(rows), axis)
        for part, piece in zip(parts, pieces, strict=True):
            part[name] = piece.contiguous()
    return parts


def concat_batch(spec: ComponentSpec, parts: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The outputs of all parts as one; the batch is not always the first axis."""
    import torch

    return {t.name: torch.cat([part[t.name] for part in parts], spec.batch_axes[t.name]) for t in spec.outputs}


class CallStats:
    """How the calls so far were served; counted from any thread."""

    def __init__(self, profiles: Sequence[ShapeProfile]) -> None:
        self.profiles = tuple(profiles)
        self.calls_by_profile: Counter[int] = Counter()
        self.split_calls = self.parts = self.eager_calls = 0
        self._lock = threading.Lock()

    def count(self, choice: ProfileChoice | None) -> None:
        """Count a call by how it was served; None for one that ran the checkpoint's module."""
        with self._lock:
            if choice is None:
                self.eager_calls += 1
                return
            self.calls_by_profile[choice.profile] += 1
            if choice.rows:
                self.split_calls += 1
                self.parts += len(choice.rows)

    def notes(self) -> tuple[str, ...]:
        """One line each: calls by profile where there are several, split calls, calls of the checkpoint's module."""
        notes = []
        if len(self.profiles) > 1:
            notes += [f"{calls(n)} in profile {self.profiles[i]}" for i, n in sorted(self.calls_by_profile.items())]
        if self.split_calls:
            notes.append(f"{calls(self.split_calls)} with a larger batch than was built, run in {self.parts} parts")
        if self.eager_calls:
            notes.append(f"{calls(self.eager_calls)} of a size that was not built, run by the checkpoint's own module")
        return tuple(notes)


def calls(count: int) -> str:
    """A number of calls."""
    return f"{count} call" if count == 1 else f"{count} calls"
