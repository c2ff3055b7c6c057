"""How long builds took on this machine, so that the next one can be foreseen: one small file in the user's cache.

A build that could not be written down, or a file that cannot be read, only means that nothing is known.
"""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path
from statistics import median

from filelock import FileLock, Timeout
from pydantic import Field

from sdtrt.errors import SdtrtError
from sdtrt.system import env
from sdtrt.system.files import write_text
from sdtrt.system.json_records import Record, read

FORMAT_VERSION = 1
KEPT = 300
# Entries of one kind that are looked at: the newest know best what is cached.
RECENT = 3
# Share by which the weights of two components may differ to take alike long, per byte.
NEAR = 0.25
_LOCK_S = 10.0


class HistoryError(SdtrtError):
    """The file cannot be read: never shown to anybody."""

    slug = "history"


class Entry(Record):
    """One component that was built. `machine` is processor, cores and device; `seconds` are by stage."""

    machine: str
    backend: str
    component: str
    precision: str
    profiles: str
    weight_bytes: int = Field(ge=0)
    seconds: dict[str, float]
    created: str = ""


class History(Record):
    """All entries, oldest first."""

    format: int = FORMAT_VERSION
    entries: tuple[Entry, ...] = ()

    def expect(self, asked: Entry) -> dict[str, float] | None:
        """Seconds by stage for a component like `asked`, or None when nothing like it was built here.

        Of the same machine, backend, component and precision, and of nearly the same weights; those with the same
        profiles go before others. Times are medians of the newest, in proportion to the weights.
        """
        alike = [e for e in self.entries if _kind(e) == _kind(asked) and _near(e.weight_bytes, asked.weight_bytes)]
        same = [e for e in alike if e.profiles == asked.profiles]
        found = (same or alike)[-RECENT:]
        if not found:
            return None
        stages = list(dict.fromkeys(stage for e in found for stage in e.seconds))
        return {
            stage: median(
                e.seconds[stage] * asked.weight_bytes / max(e.weight_bytes, 1) for e in found if stage in e.seconds
            )
            for stage in stages
        }


def machine(device: str) -> str:
    """What build times depend on here; `device` is the backend's."""
    facts = env.describe()
    return f"{facts['cpu']}, {facts['cores']} cores, {device}"


def path() -> Path:
    """The file."""
    return env.cache_folder() / "builds.json"


def load() -> History:
    """What is known; nothing, when there is no file or it cannot be read."""
    try:
        return read(path(), History, FORMAT_VERSION, HistoryError, "delete it")
    except HistoryError:
        return History()


def add(entry: Entry) -> None:
    """Write down one more component; builds that run at the same time wait for each other."""
    file = path()
    entry = entry.model_copy(update={"created": datetime.now(timezone.utc).isoformat(timespec="seconds")})
    with suppress(OSError, Timeout):  # a build is not less good for it
        file.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(file.with_name(f".{file.name}.lock"), timeout=_LOCK_S):
            entries = (*load().entries, entry)[-KEPT:]
            write_text(file, History(entries=entries).model_dump_json(indent=1) + "\n")


def _kind(entry: Entry) -> tuple[str, ...]:
    return entry.machine, entry.backend, entry.component, entry.precision


def _near(one: int, other: int) -> bool:
    return abs(one - other) <= NEAR * max(one, other)
