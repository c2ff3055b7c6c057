"""Messages between the calling process and the build process: one JSON object a line.

Input: a `BuildJob`, then "cancel" or the end of the pipe, which both stop the build. Output: `BuildReport`s.
"""

from typing import Literal

from sdtrt.engines.backends.tensorrt.options import TrtOptions
from sdtrt.engines.backends.tensorrt.running.plan_file import ShapeRange
from sdtrt.system.json_records import Record

Stage = Literal["parse", "profile", "option", "build", "canceled"]


class BuildJob(Record):
    """One engine to build: files, optimization profiles (min, opt, max shapes by input), options."""

    onnx: str
    plan: str
    profiles: tuple[dict[str, ShapeRange], ...]
    options: TrtOptions
    timing_cache: str | None = None


class BuildReport(Record):
    """One message: progress, a line of TensorRT's log or a note, the stage that failed, or the end of the build."""

    progress: tuple[str, float] | None = None
    severity: str | None = None
    text: str = ""
    failed: Stage | None = None
    done: bool = False
