"""From a plan file to an engine: checks first, then TensorRT, and its log when it says no."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from sdtrt.engines.backends.tensorrt import error_table
from sdtrt.engines.backends.tensorrt.logger import errors, logger
from sdtrt.engines.backends.tensorrt.options import TrtOptions
from sdtrt.engines.backends.tensorrt.running import plan_file
from sdtrt.errors import EngineError

if TYPE_CHECKING:
    import tensorrt as trt

_MIB = 1 << 20


def load(path: Path, options: TrtOptions, what: str, rebuild: str, onnx: Path | None = None) -> trt.ICudaEngine:
    """Deserialize a plan; `onnx` has the weights of a stripped one. Raises EngineError.

    The file is streamed, so that a plan of gigabytes is never whole in host memory.
    """
    import tensorrt as trt

    header = plan_file.read_header(path, rebuild)
    plan_file.check_version(header, trt.__version__, rebuild, options.version_compatible)
    with errors() as logged:
        runtime = trt.Runtime(logger())
        if options.version_compatible:
            runtime.engine_host_code_allowed = True
        with path.open("rb") as file:
            engine: trt.ICudaEngine | None = runtime.deserialize_cuda_engine(_reader(file))
    if engine is None:
        raise error_table.from_log(
            logged,
            what,
            rebuild=rebuild,
            otherwise=EngineError(
                f"the engine of {what} cannot be loaded",
                slug="engine-damaged",
                received=f"{path}, which TensorRT refuses without a word",
                expected="the file that was built",
                hint=f"rebuild: {rebuild} --force",
            ),
        )
    if onnx is not None:
        put_weights(engine, onnx, what, rebuild)
    if options.weight_streaming:
        _set_budget(engine, options.weight_budget_mib, what)
    return engine


def put_weights(engine: trt.ICudaEngine, onnx: Path, what: str, rebuild: str) -> None:
    """Set all weights from an ONNX file with its external data."""
    import tensorrt as trt

    with errors() as logged:
        refitter = trt.Refitter(engine, logger())
        parser = trt.OnnxParserRefitter(refitter, logger())
        accepted = parser.refit_from_file(str(onnx))
        lines = [parser.get_error(i).desc() for i in range(parser.num_errors)]
        missing = refitter.get_missing_weights() if accepted else []
        done = accepted and not missing and refitter.refit_cuda_engine()
    if not done:
        raise error_table.from_log(
            [*lines, *logged],
            what,
            rebuild=rebuild,
            otherwise=EngineError(
                f"the weights of {what} cannot be put into its engine",
                slug="refit-failed",
                received=f"{len(missing)} weights are missing, such as {missing[0]}" if missing else str(onnx),
                expected="every weight that the plan was built without",
                hint=f"rebuild: {rebuild} --force",
            ),
        )


def _set_budget(engine: trt.ICudaEngine, budget_mib: int | None, what: str) -> None:
    """Before any context exists: afterwards TensorRT refuses, and the setter does not say so."""
    total: int = engine.streamable_weights_size
    wanted = total if budget_mib is None else min(budget_mib * _MIB, total)
    engine.weight_streaming_budget_v2 = wanted
    if engine.weight_streaming_budget_v2 != wanted:
        raise EngineError(
            f"{what}: the budget for streamed weights was refused",
            slug="weight-budget",
            received=f"{wanted} bytes; it stays {engine.weight_streaming_budget_v2}",
            expected=f"0 to {total} bytes, of an engine built with weight_streaming",
            hint="rebuild with weight_streaming: true, or leave weight_budget_mib out",
        )


def streams_weights(engine: trt.ICudaEngine) -> bool:
    """Whether weights are copied while layers run: then nothing can be captured."""
    total: int = engine.streamable_weights_size
    budget: int = engine.weight_streaming_budget_v2
    return total > 0 and budget < total


def _reader(file: BinaryIO) -> trt.IStreamReaderV2:
    import tensorrt as trt

    class Reader(trt.IStreamReaderV2):
        def __init__(self) -> None:
            trt.IStreamReaderV2.__init__(self)  # looks for the driver

        def read(self, num_bytes: int, stream: int) -> bytes:
            return file.read(num_bytes)

        def seek(self, offset: int, where: trt.SeekPosition) -> bool:
            file.seek(offset, int(where))
            return True  # the position would be 0 at the start of the file, which TensorRT takes for a failure

    reader: Any = Reader()
    return reader
