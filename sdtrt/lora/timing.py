"""How long a switch of LoRAs took."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PartTime:
    """One engine's share: weights summed (`fuse_ms`), put into it (`put_ms`) and tried out (`check_ms`)."""

    part: str
    weights: int
    fuse_ms: float
    put_ms: float
    check_ms: float

    @property
    def total_ms(self) -> float:
        """All of it."""
        return self.fuse_ms + self.put_ms + self.check_ms

    def __str__(self) -> str:
        """For a line of text."""
        shares = f"fuse {self.fuse_ms:.0f}, put {self.put_ms:.0f}, check {self.check_ms:.0f}"
        return f"{self.part} {self.total_ms:.0f} ms for {self.weights} weights ({shares})"


@dataclass(frozen=True)
class SwitchTime:
    """One call of a LoRA method; engines whose weights stayed the same are not among the parts."""

    method: str
    total_ms: float
    parts: tuple[PartTime, ...]

    def __str__(self) -> str:
        """As one line."""
        return "; ".join([f"{self.method} took {self.total_ms:.0f} ms", *map(str, self.parts)])
