"""The most memory that this process had resident, and where its counting starts again."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def reset_peak() -> None:
    """Count the peak from now on, where the system can."""
    with suppress(OSError):
        _RESET.write_text("5", encoding="ascii")


def peak_bytes() -> int | None:
    """The most memory that this process had resident since `reset_peak`; None where the system does not say.

    Not `getrusage`: on Linux its figure includes the process that this one was forked from.
    """
    with suppress(OSError):
        for line in _STATUS.read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return None
