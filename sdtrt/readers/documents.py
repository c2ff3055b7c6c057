"""JSON files as profilers write them: with control characters, unescaped quotes, infinities, or cut off.

TensorRT does not escape names, so a quote in one breaks the file; files are repaired where only names are broken.
Numbers that are not finite or have twenty digits are None: no figure of an engine needs them.
"""

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdtrt.errors import PlanError

LIMIT_BYTES = 1 << 30
_DIGITS = 19
# A name, up to the quote that another key, the end of its object or the end of its line follows.
_BROKEN = re.compile(
    r'("(?:[Nn]ame|Metadata|TacticName)"\s*:\s*")(.{0,20000}?)"(?=\s*,\s*"[A-Za-z/ ]+"\s*:|\s*[}\]]|\s*,\s*\n)', re.S
)
_SURROGATE = re.compile(r"\\u[dD][89abAB]")


@dataclass(frozen=True)
class Document:
    """A file and what is in it."""

    path: Path
    data: Any
    notes: tuple[str, ...] = ()


class Omissions:
    """Entries of a file that were not used, counted by kind: thousands of equal faults are one note."""

    def __init__(self) -> None:
        self._counts: dict[str, tuple[int, str]] = {}

    def add(self, kind: str, where: object) -> None:
        """Count one; `where` is kept for the first of its kind."""
        count, first = self._counts.get(kind, (0, str(where)[:120]))
        self._counts[kind] = (count + 1, first)

    def notes(self) -> tuple[str, ...]:
        """One sentence for each kind."""
        return tuple(
            f"left out: {kind} ({count} times, first in {where})" for kind, (count, where) in self._counts.items()
        )


def parse(path: Path) -> Document:
    """Read one JSON file; PlanError when it cannot be read, is too large, or is not JSON."""
    try:
        size = path.stat().st_size
        if size > LIMIT_BYTES:
            raise PlanError(
                "the file is too large for a layer report",
                slug="plan-size",
                received=f"{path}: {size} bytes",
                expected=f"at most {LIMIT_BYTES} bytes",
            )
        text = path.read_bytes().decode("utf-8-sig", errors="replace")
    except OSError as exc:
        raise PlanError(f"the file cannot be read: {exc.strerror}", slug="plan-missing", received=path) from exc
    numbers = _Numbers()
    notes = []
    try:
        data, repaired = _loads(text, numbers)
        if _SURROGATE.search(text):
            data = _encodable(data)
    except (ValueError, RecursionError) as exc:
        raise PlanError(
            "the file is not JSON", slug="plan-json", received=path, expected=str(exc)[:200], hint=_hint(path, text)
        ) from exc
    if repaired:
        notes.append(f"{path.name}: quotes in names were not escaped, and were mended")
    if numbers.dropped:
        notes.append(f"left out: {numbers.dropped} numbers in {path.name} that are infinite or have too many digits")
    return Document(path, data, tuple(notes))


def _hint(path: Path, text: str) -> str:
    """What to do about a file that is not JSON."""
    if path.suffix == ".onnx":
        return "this is the model, not the engine: name the engine's exported JSON file, and the model with --onnx"
    if "\ufffd" in text[:4096] or "\0" in text[:4096]:
        return (
            "an engine says nothing of itself without TensorRT; export it: trtexec --loadEngine=FILE "
            "--exportLayerInfo=X.graph.json --exportProfile=X.profile.json"
        )
    return "export it again: it may be cut off"


class _Numbers:
    def __init__(self) -> None:
        self.dropped = 0

    def whole(self, text: str) -> int | None:
        return int(text) if len(text) <= _DIGITS else self.none()

    def real(self, text: str) -> float | None:
        value = float(text)
        return value if math.isfinite(value) else self.none()

    def none(self, _: str = "") -> Any:
        self.dropped += 1
        return None


def _loads(text: str, numbers: _Numbers) -> tuple[Any, bool]:
    """Parsed text, and whether it had to be repaired."""

    def loads(content: str) -> Any:
        numbers.dropped = 0
        return json.loads(
            content, strict=False, parse_int=numbers.whole, parse_float=numbers.real, parse_constant=numbers.none
        )

    try:
        return loads(text), False
    except json.JSONDecodeError as exc:
        try:
            return loads(_BROKEN.sub(_escaped, text)), True
        except json.JSONDecodeError:
            raise exc from None  # the first error has the position in the file as it is


def _escaped(match: re.Match[str]) -> str:
    """The name with its bare quotes escaped; a profile's names have no escapes at all, a graph's have some."""
    start, name = match.groups()
    if start.startswith('"name"'):
        return start + json.dumps(name)[1:]
    return start + re.sub(r'(?<!\\)"', r"\"", name) + '"'


def _encodable(value: Any) -> Any:
    """Half a surrogate pair cannot be written as UTF-8: it becomes a question mark."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode("utf-8")
    if isinstance(value, list):
        return [_encodable(item) for item in value]
    if isinstance(value, dict):
        return {_encodable(key): _encodable(item) for key, item in value.items()}
    return value
