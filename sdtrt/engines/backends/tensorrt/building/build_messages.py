"""What the process that builds is told, and what it tells: one JSON object a line, both ways.

To it: a `Job`, then "cancel" or the end of the pipe, which both mean stop. From it: `Report`s.
"""

from __future__ import annotations

from typing import Literal

from sdtrt.engines.backends.tensorrt.options import TrtOptions
from sdtrt.engines.backends.tensorrt.running.plan_file import Shapes
from sdtrt.system.json_records import Record

Stage = Literal["parse", "profile", "option", "build", "canceled"]


class Job(Record):
    """One engine to build: files, optimization profiles (min, opt, max shapes by input), options."""

    onnx: str
    plan: str
    profiles: tuple[dict[str, Shapes], ...]
    options: TrtOptions
    timing_cache: str | None = None


class Report(Record):
    """One message: how far it is, a line of TensorRT's log, a note, how it failed, or that it is done."""

    progress: tuple[str, float] | None = None
    severity: str | None = None
    text: str = ""
    note: str | None = None
    failed: Stage | None = None
    done: bool = False
