"""A backend as the contract suite takes it: TensorRT by its double, and none that this machine cannot run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from trt import use
from trt.bindings import NEWEST, Unreachable

from sdtrt import engines


@contextmanager
def usable(name: str, cache: Path) -> Iterator[engines.Backend]:
    """The backend called `name` while open; the test is skipped where it cannot be had."""
    with ExitStack() as stack:
        if name == "tensorrt":
            try:
                stack.enter_context(use.tensorrt(NEWEST, cache))  # the double: see tests/trt
            except Unreachable as exc:
                pytest.skip(str(exc))
        found = engines.load(name)
        if (why := found.unavailable()) is not None:
            pytest.skip(f"{name}: {why.reason}")
        yield found
