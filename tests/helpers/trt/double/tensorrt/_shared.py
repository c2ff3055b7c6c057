"""Members that builder, runtime and refitter have in common: set `_logger` and `_threads` for them."""

from __future__ import annotations

from operator import attrgetter


def _set_threads(made, value):
    made._threads = int(value)


LOGGER = property(attrgetter("_logger"))
MAX_THREADS = property(attrgetter("_threads"), _set_threads)
