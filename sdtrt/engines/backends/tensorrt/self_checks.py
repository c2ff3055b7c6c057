"""What a self-test asks of a TensorRT engine beyond what every engine can tell.

Here because only the engine's files know TensorRT. Some functions make mistakes on purpose, to see which words this
release has for them.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from sdtrt.engines.backends.tensorrt import cuda, error_table, logger
from sdtrt.engines.backends.tensorrt.engine import TrtEngine
from sdtrt.engines.backends.tensorrt.running import optimization_profiles, stream_memory
from sdtrt.engines.backends.tensorrt.running.plan_file import PLAN, read_record

if TYPE_CHECKING:
    import tensorrt as trt

_VERSION = slice(24, 28)  # of a plan file


def profile_in_use(engine: TrtEngine, shapes: dict[str, tuple[int, ...]]) -> int:
    """Which optimization profile a context of this engine is in, after it was set to these shapes as a call does."""
    session = engine.session
    lane = stream_memory.lane(session.device)
    chosen = optimization_profiles.choose(shapes, session.profiles, session.what, session.rebuild)
    with cuda.cuda.use(lane.stream):
        binding = session.bind()
        binding.shape(chosen, shapes, lane)
        context: trt.IExecutionContext = binding.context
        active: int = context.active_optimization_profile
    return active


def of_another_version(folder: Path, target: Path) -> Path:
    """A copy of an engine whose plan says that another TensorRT wrote it."""
    shutil.copytree(folder, target)
    path = target / PLAN
    data = bytearray(path.read_bytes())
    data[_VERSION] = bytes((data[24] - 1, 0, 0, 1))
    path.write_bytes(data)
    return target


@contextmanager
def watched() -> Iterator[list[tuple[str, str]]]:
    """Yield a list that fills with (severity, text) of warnings and errors that TensorRT logs in this process."""
    found: list[tuple[str, str]] = []

    def listen(severity: str, text: str) -> None:
        if severity in ("WARNING", "ERROR", "INTERNAL_ERROR"):
            found.append((severity, text))

    with logger.listening(listen):
        yield found


def known(text: str) -> str | None:
    """The slug of the case in the table of errors that a message is of."""
    case = error_table.match([text])
    return None if case is None else case[0].slug


def mistakes(engine: TrtEngine) -> dict[str, Callable[[], bool]]:
    """{slug that its message should have: a call that TensorRT must refuse}; False is its answer."""
    session = engine.session
    name = session.inputs[0]
    shape = tuple(session.profiles[0][name][2])
    lane = stream_memory.lane(session.device)

    def too_large() -> bool:
        binding = session.bind()
        context: trt.IExecutionContext = binding.context
        return bool(context.set_input_shape(name, (shape[0] * 1000, *shape[1:])))

    def without_address() -> bool:
        binding = session.bind()
        binding.shape(0, {n: tuple(session.profiles[0][n][1]) for n in session.inputs}, lane)
        context: trt.IExecutionContext = binding.context
        return bool(context.execute_async_v3(lane.stream.cuda_stream))

    return {"outside-profile": too_large, "engine-address": without_address}


def notes(folder: Path) -> tuple[str, ...]:
    """What the builder had to say about an engine."""
    return read_record(folder, "sdtrt doctor --self-test").notes
