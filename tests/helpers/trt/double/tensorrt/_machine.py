"""The GPU that the double pretends to have, and the faults that a test asks for; both hold in child processes."""

from __future__ import annotations

import os


def gpu_name() -> str:
    """TENSORRT_DOUBLE_GPU as "name" or "name:compute capability"."""
    return os.environ.get("TENSORRT_DOUBLE_GPU", "Double GPU:8.9").partition(":")[0]


def compute_capability() -> str:
    """Such as "8.9"."""
    return os.environ.get("TENSORRT_DOUBLE_GPU", "Double GPU:8.9").partition(":")[2] or "8.9"


def fault(name: str) -> bool:
    """Whether TENSORRT_DOUBLE_FAULTS, a list with commas, asks for this one.

    build-crash: the process of the builder dies. no-implementation: no tactic is found. out-of-memory: neither a tactic
    nor memory. no-context: contexts cannot be made. not-capturable: enqueueing in a capture fails. enqueue-fails: every
    one does. nan: outputs are not numbers. rows-differ: equal rows of a batch give unequal results.
    """
    return name in os.environ.get("TENSORRT_DOUBLE_FAULTS", "").split(",")


def build_seconds() -> float:
    """How long the slowest phase of a build lasts, for tests that cancel it: TENSORRT_DOUBLE_BUILD_SECONDS."""
    return float(os.environ.get("TENSORRT_DOUBLE_BUILD_SECONDS", "0"))
