"""The C library's heap: it keeps freed memory, and large models leave gigabytes there.

psutil's `heap_trim` (7.2) would serve `give_back` alone: it has no `mallopt`.
"""

import ctypes
import gc
from collections.abc import Iterator
from contextlib import contextmanager, suppress

# glibc's parameters and its highest mmap threshold, which it reaches as large blocks are freed; it trims at twice that.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _HIGHEST = -1, -3, 32 << 20
_LARGE = 1 << 20


def give_back() -> None:
    """Collect Python's reference cycles, then return all free memory to the system."""
    gc.collect()
    _call("malloc_trim", 0)


@contextmanager
def returning() -> Iterator[None]:
    """Within this context each large block goes back to the system as soon as it is freed; allocation is slower."""
    _call("mallopt", _MMAP_THRESHOLD, _LARGE)
    try:
        yield
    finally:
        _call("mallopt", _MMAP_THRESHOLD, _HIGHEST)
        _call("mallopt", _TRIM_THRESHOLD, 2 * _HIGHEST)
        _call("malloc_trim", 0)


def _call(name: str, *arguments: int) -> None:
    with suppress(OSError, AttributeError):  # glibc alone has all of these
        getattr(ctypes.CDLL(None), name)(*arguments)
