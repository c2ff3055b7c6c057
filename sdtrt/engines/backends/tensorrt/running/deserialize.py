"""From a plan file to an engine: the checks of its header, TensorRT, and the errors from its log."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from sdtrt.engines.backends.tensorrt.error_table import ErrorContext
from sdtrt.engines.backends.tensorrt.logger import collect_errors, logger
from sdtrt.engines.backends.tensorrt.options import TrtOptions
from sdtrt.engines.backends.tensorrt.running import plan_file
from sdtrt.errors import EngineError

if TYPE_CHECKING:
    import tensorrt as trt

_MIB = 1 << 20


def deserialize_plan(
    path: Path, options: TrtOptions, context: ErrorContext, onnx: Path | None = None
) -> trt.ICudaEngine:
    """Deserialize a plan. The file is streamed, so host memory never holds a plan of gigabytes as a whole.

    Args:
        path: the plan file.
        options: whether to run the plan's host code, and the budget for streamed weights.
        context: what errors name.
        onnx: the ONNX file with the weights of a stripped plan.

    Raises:
        EngineError: the plan is damaged or of another TensorRT, or weights or budget are refused.
    """
    import tensorrt as trt

    plan_file.check_version(path, trt.__version__, context.rebuild, options.version_compatible)
    with collect_errors() as logged:
        runtime = trt.Runtime(logger())
        if options.version_compatible:
            runtime.engine_host_code_allowed = True
        with path.open("rb") as file:
            engine: trt.ICudaEngine | None = runtime.deserialize_cuda_engine(_stream_reader(file))
    if engine is None:
        fallback = EngineError(
            f"the engine of {context.name} cannot be loaded",
            slug="engine-damaged",
            received=f"{path}, which TensorRT refuses without a message",
            expected="the file that was built",
            hint=f"rebuild: {context.rebuild} --force",
        )
        raise context.from_log(logged, fallback)
    if onnx is not None:
        _refit_from_onnx(engine, onnx, context)
    if options.weight_streaming:
        _set_weight_budget(engine, options.weight_budget_mib, context)
    return engine


def _refit_from_onnx(engine: trt.ICudaEngine, onnx: Path, context: ErrorContext) -> None:
    import tensorrt as trt

    with collect_errors() as logged:
        refitter = trt.Refitter(engine, logger())
        parser = trt.OnnxParserRefitter(refitter, logger())
        accepted = parser.refit_from_file(str(onnx))
        lines = [parser.get_error(i).desc() for i in range(parser.num_errors)]
        missing = refitter.get_missing_weights() if accepted else []
        refitted = accepted and not missing and refitter.refit_cuda_engine()
    if not refitted:
        fallback = EngineError(
            f"the weights of {context.name} cannot be put into its engine",
            slug="refit-failed",
            received=f"{len(missing)} weights are missing, such as {missing[0]}" if missing else str(onnx),
            expected="every weight that the plan was built without",
            hint=f"rebuild: {context.rebuild} --force",
        )
        raise context.from_log([*lines, *logged], fallback)


def _set_weight_budget(engine: trt.ICudaEngine, budget_mib: int | None, context: ErrorContext) -> None:
    """Before any execution context exists: afterwards TensorRT refuses, and the property raises nothing."""
    total: int = engine.streamable_weights_size
    budget = total if budget_mib is None else min(budget_mib * _MIB, total)
    engine.weight_streaming_budget_v2 = budget
    if engine.weight_streaming_budget_v2 != budget:
        raise EngineError(
            f"{context.name}: the budget for streamed weights was refused",
            slug="weight-budget",
            received=f"{budget} bytes; it stays {engine.weight_streaming_budget_v2}",
            expected=f"0 to {total} bytes, of an engine built with weight_streaming",
            hint="rebuild with weight_streaming: true, or leave weight_budget_mib out",
        )


def streams_weights(engine: trt.ICudaEngine) -> bool:
    """Whether weights are copied while layers run, which excludes CUDA graphs."""
    total: int = engine.streamable_weights_size
    return total > 0 and bool(engine.weight_streaming_budget_v2 < total)


def _stream_reader(file: BinaryIO) -> trt.IStreamReaderV2:
    import tensorrt as trt

    class Reader(trt.IStreamReaderV2):
        def __init__(self) -> None:
            trt.IStreamReaderV2.__init__(self)  # checks for the driver

        def read(self, num_bytes: int, stream: int) -> bytes:
            return file.read(num_bytes)

        def seek(self, offset: int, where: trt.SeekPosition) -> bool:
            file.seek(offset, int(where))
            return True  # not the position: at the start of the file that is 0, which TensorRT takes for a failure

    reader: Any = Reader()
    return reader
