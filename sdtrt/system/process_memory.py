"""The peak resident memory of this process, from a moment on.

psutil (7.2) has no peak on Linux, and the peak of the standard library's `resource` cannot be reset.
"""

from contextlib import suppress
from pathlib import Path

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def reset_peak() -> None:
    """Count the peak from now on; does nothing where the system cannot."""
    with suppress(OSError):
        _RESET.write_text("5", encoding="ascii")


def peak_bytes() -> int | None:
    """The peak since `reset_peak`; None where the system does not report it."""
    with suppress(OSError):
        for line in _STATUS.read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return None
