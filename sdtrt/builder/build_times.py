"""Build times on this machine, from which the next ones are estimated: one small file in the user's cache.

A file that cannot be read or written is no error: the times are unknown then.
"""

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
# An estimate uses this many of the newest entries: they reflect best what is cached.
RECENT = 3
# Two components take equally long per byte when their weights differ by at most this share.
NEAR = 0.25
_LOCK_S = 10.0


class HistoryError(SdtrtError):
    """The file cannot be read; `load` handles it."""

    slug = "history"


class Entry(Record):
    """One built component. `machine` is processor, cores and device; `seconds` are by stage."""

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

    def expect(self, planned: Entry) -> dict[str, float] | None:
        """Expected seconds by stage of a planned component, or None when no similar one was built here.

        Similar components have the same machine, backend, component and precision, and nearly the same weights; those
        with the same profiles are preferred. Times are medians of the newest, in proportion to the weights.
        """
        similar = [e for e in self.entries if _similar(e, planned)]
        newest = ([e for e in similar if e.profiles == planned.profiles] or similar)[-RECENT:]
        if not newest:
            return None
        by_stage: dict[str, list[float]] = {}
        for entry in newest:
            for stage, seconds in entry.seconds.items():
                scaled_s = seconds * planned.weight_bytes / max(entry.weight_bytes, 1)
                by_stage.setdefault(stage, []).append(scaled_s)
        return {stage: median(times_s) for stage, times_s in by_stage.items()}


def machine(device: str) -> str:
    """The machine as the entries name it; `device` is that of the backend."""
    facts = env.describe()
    return f"{facts['cpu']}, {facts['cores']} cores, {device}"


def path() -> Path:
    """The file of the build times."""
    return env.cache_folder() / "builds.json"


def load() -> History:
    """The build times; empty when there is no file or it cannot be read."""
    try:
        return read(path(), History, FORMAT_VERSION, HistoryError, "delete it")
    except HistoryError:
        return History()


def add(entry: Entry) -> None:
    """Append an entry; builds that run at the same time wait for each other."""
    file = path()
    entry = entry.model_copy(update={"created": datetime.now(timezone.utc).isoformat(timespec="seconds")})
    with suppress(OSError, Timeout):  # the build succeeds without it
        file.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(file.with_name(f".{file.name}.lock"), timeout=_LOCK_S):
            entries = (*load().entries, entry)[-KEPT:]
            write_text(file, History(entries=entries).model_dump_json(indent=1) + "\n")


def _similar(one: Entry, other: Entry) -> bool:
    alike = all(getattr(one, f) == getattr(other, f) for f in ("machine", "backend", "component", "precision"))
    return alike and abs(one.weight_bytes - other.weight_bytes) <= NEAR * max(one.weight_bytes, other.weight_bytes)
