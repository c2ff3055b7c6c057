"""What a pass returns."""

from __future__ import annotations

from dataclasses import dataclass

import onnx


@dataclass(frozen=True)
class Result:
    """The model after the pass, how many nodes it touched, and why it left others alone."""

    model: onnx.ModelProto
    changed: int
    notes: tuple[str, ...] = ()
