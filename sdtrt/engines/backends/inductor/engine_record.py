"""engine.json of a compiled engine: which package serves which sizes, and whose parameters lie in which weight."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from sdtrt.bundle.manifest import Change
from sdtrt.errors import EngineError
from sdtrt.system import files
from sdtrt.system.json_records import Record, read

FILE = "engine.json"
# 1: first version. 2: rows in shares. 3: no shares any more. 4: passes as changes.
FORMAT_VERSION = 4


class PartRecord(Record):
    """One file of compiled code and what its arguments are called."""

    file: str
    arguments: tuple[str, ...]


class BucketRecord(Record):
    """The packages of one size. `handed` is what the prompt's part gives to each step."""

    sizes: dict[str, int]
    rows: int
    step: PartRecord
    prompt: PartRecord | None = None
    handed: tuple[str, ...] = ()

    def renamed(self, names: Mapping[str, str]) -> BucketRecord:
        """The same with other names of weights."""

        def part(record: PartRecord) -> PartRecord:
            return record.model_copy(update={"arguments": tuple(names.get(a, a) for a in record.arguments)})

        return self.model_copy(update={"step": part(self.step), "prompt": self.prompt and part(self.prompt)})


class EngineRecord(Record):
    """All of an engine. `sources` has, by weight, the parameters in it and the row at which each begins."""

    format: int = FORMAT_VERSION
    component: str
    passes: tuple[Change, ...] = ()
    buckets: tuple[BucketRecord, ...]
    sources: dict[str, tuple[tuple[str, int], ...]] = {}

    def save(self, folder: Path) -> None:
        """Write it beside the packages."""
        files.write_text(folder / FILE, self.model_dump_json(indent=1))

    @classmethod
    def load(cls, folder: Path) -> EngineRecord:
        """Read it; EngineError when it is missing, damaged or of another version."""
        return read(folder / FILE, cls, FORMAT_VERSION, EngineError, "rebuild the bundle with --force")
