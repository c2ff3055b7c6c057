"""The parts of the self-test that call TensorRT, which only the files of this package may import.

Some functions make calls that TensorRT must refuse, to read the messages of this release.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from sdtrt.engines.backends.tensorrt import cuda, error_table
from sdtrt.engines.backends.tensorrt.engine import TrtEngine
from sdtrt.engines.backends.tensorrt.running import optimization_profiles, stream_memory
from sdtrt.engines.backends.tensorrt.running.plan_file import PLAN, read_record

if TYPE_CHECKING:
    import tensorrt as trt

_VERSION = slice(24, 28)  # of a plan file


def active_profile(engine: TrtEngine, shapes: dict[str, tuple[int, ...]]) -> int:
    """The optimization profile that an execution context reports after it was set to these shapes, as a call does."""
    session = engine.session
    stream_context = stream_memory.stream_context(session.device)
    profile = optimization_profiles.choose(shapes, session.profiles, session.error_context)
    with cuda.runtime.use(stream_context.stream):
        execution_context = session.new_context()
        execution_context.set_shapes(profile, shapes, stream_context)
        context: trt.IExecutionContext = execution_context.trt_context
        active: int = context.active_optimization_profile
    return active


def copy_with_other_version(folder: Path, target: Path) -> Path:
    """Copy an engine, with the version of another TensorRT in the header of its plan."""
    shutil.copytree(folder, target)
    path = target / PLAN
    data = bytearray(path.read_bytes())
    data[_VERSION] = bytes((data[24] - 1, 0, 0, 1))
    path.write_bytes(data)
    return target


def error_slug(text: str) -> str | None:
    """The slug of the table's case that a message matches."""
    matched = error_table.match([text])
    return None if matched is None else matched[0].slug


def refused_calls(engine: TrtEngine) -> dict[str, Callable[[], bool]]:
    """{slug that its message should have: a call that TensorRT must refuse}; a call returns False when refused."""
    session = engine.session
    name = session.inputs[0]
    shape = tuple(session.profiles[0][name][2])
    stream_context = stream_memory.stream_context(session.device)

    def set_oversized_shape() -> bool:
        context: trt.IExecutionContext = session.new_context().trt_context
        return bool(context.set_input_shape(name, (shape[0] * 1000, *shape[1:])))

    def run_without_address() -> bool:
        execution_context = session.new_context()
        execution_context.set_shapes(0, {n: tuple(session.profiles[0][n][1]) for n in session.inputs}, stream_context)
        context: trt.IExecutionContext = execution_context.trt_context
        return bool(context.execute_async_v3(stream_context.stream.cuda_stream))

    return {"outside-profile": set_oversized_shape, "engine-address": run_without_address}


def build_notes(folder: Path) -> tuple[str, ...]:
    """Notes of the builder in the record of an engine."""
    return read_record(folder, "sdtrt doctor --self-test").notes
