"""What a pass returns, on ONNX and on traced graphs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

G = TypeVar("G")


@dataclass(frozen=True)
class Result(Generic[G]):
    """The graph after the pass, how many nodes it changed, and why it left others alone."""

    model: G
    changed: int
    notes: tuple[str, ...] = ()
