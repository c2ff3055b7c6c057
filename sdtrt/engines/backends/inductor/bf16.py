"""A module that computes in bfloat16 behind a float32 signature."""

from typing import Any

from torch import Tensor, nn


class InBfloat16(nn.Module):
    """Casts what comes in and what goes out."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner.bfloat16()

    def forward(self, **tensors: Tensor) -> tuple[Tensor, ...]:
        """The inner module's outputs as float32."""
        made: Any = self.inner(**{n: t.bfloat16() if t.is_floating_point() else t for n, t in tensors.items()})
        return tuple(t.float() for t in made)
