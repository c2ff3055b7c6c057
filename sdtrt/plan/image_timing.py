"""A timed image: the wall time of one pipeline call and the share of each engine, as a JSON file.

`sdtrt build` and `sdtrt generate --record` write it, the analysis reads it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, PositiveInt

from sdtrt.errors import SdtrtError
from sdtrt.plan.layers import Milliseconds
from sdtrt.system.files import write_text
from sdtrt.system.json_records import Record, read

FORMAT_VERSION = 1
FILE = "image.json"


class RunError(SdtrtError):
    """A recorded run cannot be read."""

    slug = "run"


class EngineCalls(Record):
    """The runs of an engine for the image, and the wall time of all of them."""

    count: PositiveInt
    total_ms: Milliseconds


class ImageRun(Record):
    """One call of a pipeline: `wall_ms` from prompt to pixels, `engines` by component."""

    format: int = FORMAT_VERSION
    steps: PositiveInt
    images: PositiveInt
    height: PositiveInt
    width: PositiveInt
    guidance_scale: Annotated[float, Field(allow_inf_nan=False)] | None = None
    scheduler: str | None = None
    device: str | None = None
    wall_ms: Milliseconds
    engines: dict[str, EngineCalls]

    def save(self, path: Path) -> None:
        """Write as JSON."""
        write_text(path, self.model_dump_json(indent=1) + "\n")

    @classmethod
    def load(cls, path: Path) -> ImageRun:
        """Read; RunError names the file and the field that is wrong."""
        return read(path, cls, FORMAT_VERSION, RunError, "record one: sdtrt generate BUNDLE --record FILE")
