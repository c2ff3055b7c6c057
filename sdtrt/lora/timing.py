"""Times of a change of LoRAs."""

from dataclasses import dataclass


@dataclass(frozen=True)
class PartTime:
    """Times of one engine: adding adapters to weights (`fuse_ms`), putting them in (`put_ms`), and the check."""

    part: str
    weights: int
    fuse_ms: float
    put_ms: float
    check_ms: float

    @property
    def total_ms(self) -> float:
        """The sum of the three."""
        return self.fuse_ms + self.put_ms + self.check_ms

    def __str__(self) -> str:
        """One entry of a line of text."""
        shares = f"fuse {self.fuse_ms:.0f}, put {self.put_ms:.0f}, check {self.check_ms:.0f}"
        return f"{self.part} {self.total_ms:.0f} ms for {self.weights} weights ({shares})"


@dataclass(frozen=True)
class SwitchTime:
    """Times of one call of a LoRA method; `parts` are the engines whose weights changed."""

    method: str
    total_ms: float
    parts: tuple[PartTime, ...]

    def __str__(self) -> str:
        """As one line."""
        return "; ".join([f"{self.method} took {self.total_ms:.0f} ms", *map(str, self.parts)])
