"""Sums of figures of which some are unknown: None is never counted as 0."""

from collections.abc import Iterable
from typing import TypeVar

Number = TypeVar("Number", int, float)


def sum_known(values: Iterable[Number | None]) -> Number | None:
    """Sum of the known values; None when none is known."""
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def sum_complete(values: Iterable[Number | None]) -> Number | None:
    """Sum of all values, 0 for none; None when one is unknown."""
    known: list[Number] = []
    for value in values:
        if value is None:
            return None
        known.append(value)
    return sum(known)
