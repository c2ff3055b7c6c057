"""Times that trtexec measured: `--exportProfile`, a record per layer, and `--exportTimes`, a record per run.

Records are matched to layers by name, and by order where a name comes twice. A record that no layer has becomes a layer
of its own, so that no measured time is lost; the profiler reports what the inspector may not list.
"""

import re
from collections import defaultdict, deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sdtrt.plan.layers import LONGEST_MS, Layer, Timing
from sdtrt.readers.documents import Omissions
from sdtrt.readers.formats.tensorrt.tensors import PROFILE

_KEYS = {"total_ms": "timeMs", "mean_ms": "averageMs", "median_ms": "medianMs", "percentage": "percentage"}
UNMATCHED = "unmatched"


@dataclass(frozen=True)
class Records:
    """What the profiler wrote: names with times, in order, and the number of runs."""

    timings: tuple[tuple[str, Timing], ...]
    runs: int | None


def records(data: Any, omitted: Omissions) -> Records:
    """The profile's records; anything else in the list is left out."""
    found, runs = [], None
    for entry in data if isinstance(data, list) else []:
        if not isinstance(entry, dict):
            omitted.add("an entry of the profile that is no record", type(entry).__name__)
        elif isinstance(entry.get("name"), str):
            figures = {field: milliseconds(entry.get(key), omitted, entry["name"]) for field, key in _KEYS.items()}
            found.append((entry["name"], Timing.model_construct(None, **figures)))
        elif type(entry.get("count")) is int and entry["count"] >= 0:
            runs = entry["count"]
        else:
            omitted.add("a record of the profile without a name", str(entry))
    return Records(tuple(found), runs)


def milliseconds(value: Any, omitted: Omissions, where: object) -> float | None:
    """A time, or None when it is missing or none."""
    if type(value) in (int, float) and 0 <= value <= LONGEST_MS:
        return float(value)
    if value is not None:
        omitted.add("a time that is negative, no number or above all sense", where)
    return None


def run_times(data: Any, omitted: Omissions) -> tuple[float, ...] | None:
    """GPU time of each run."""
    entries = [e for e in data if isinstance(e, dict)] if isinstance(data, list) else []
    found = [milliseconds(e.get("computeMs"), omitted, "computeMs") for e in entries]
    return tuple(ms for ms in found if ms is not None) or None


def matches(timings: Iterable[tuple[str, Timing]], names: Iterable[str]) -> int:
    """Records that a set of layers has names for."""
    known = set(names)
    return sum(name in known for name, _ in timings)


def timed(layers: list[Layer], measured: Records) -> tuple[list[Layer], tuple[str, ...]]:
    """Layers with their times, those of unmatched records at the end, and notes on what did not fit."""
    record_of: dict[int, int] = {}
    unmatched = list(range(len(measured.timings)))
    # First by the whole name, then by the name without the tag of a profile.
    for tag in (None, PROFILE):
        waiting: dict[str, deque[int]] = defaultdict(deque)
        for index in unmatched:
            waiting[_without(tag, measured.timings[index][0])].append(index)
        for position, layer in enumerate(layers if unmatched else ()):
            if position not in record_of and (queue := waiting[_without(tag, layer.name)]):
                record_of[position] = queue.popleft()
        unmatched = sorted(set(unmatched) - set(record_of.values()))
    timed_layers = [
        layer.model_copy(update={"timing": measured.timings[record_of[i]][1]}) if i in record_of else layer
        for i, layer in enumerate(layers)
    ]
    rest = (measured.timings[i] for i in unmatched)
    extra = [Layer(name=name, kind="other", op=UNMATCHED, timing=timing) for name, timing in rest]
    return timed_layers + extra, _notes(timed_layers, extra)


def _without(tag: re.Pattern[str] | None, name: str) -> str:
    return tag.sub("", name) if tag else name


def _notes(layers: list[Layer], extra: list[Layer]) -> tuple[str, ...]:
    notes = []
    if extra:
        own, all_ms = (sum(x.time_ms or 0 for x in part) for part in (extra, [*layers, *extra]))
        share = f"{100 * own / all_ms:.1f} % of the time" if all_ms else "no time"
        notes.append(f"{len(extra)} measured names are no layers of the engine and have {share}: {extra[0].name[:80]}")
    untimed = [x for x in layers if x.timing is None]
    if untimed:
        notes.append(f"{len(untimed)} layers were not measured, such as {untimed[0].name[:80]}")
    return tuple(notes)
