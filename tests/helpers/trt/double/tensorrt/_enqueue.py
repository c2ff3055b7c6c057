"""One run of a context: whether it may start, and what it does to the memory that it was given."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from tensorrt import _logger as log
from tensorrt._enums import ExecutionContextAllocationStrategy
from tensorrt._machine import fault
from tensorrt._values import at_address

if TYPE_CHECKING:
    from tensorrt._context import IExecutionContext

_WHO = "IExecutionContext::enqueueV3: "
_CHECK = f"{_WHO}Error Code 3: API Usage Error (Parameter check failed, condition: "
_ADDRESS = f"{_CHECK}mContext.profileObliviousBindings.at(profileObliviousIndex). "


def problem(context: IExecutionContext) -> str | None:
    """Why a run is refused, or None."""
    executor = context._engine._executor
    if not context.all_binding_shapes_specified:
        return f"{_CHECK}allInputDimensionsSpecified(routine). Not all shapes are specified)"
    for name in executor.inputs:
        if not context._addresses.get(name):
            return (
                f"{_ADDRESS}Address is not set for input tensor {name}. Call setInputTensorAddress or "
                "setTensorAddress before enqueue/execute.)"
            )
    for name in executor.outputs:
        if not context._addresses.get(name):
            return (
                f"{_ADDRESS}Address is not set for output tensor {name}. Call setOutputTensorAddress, "
                "setTensorAddress or setOutputAllocator before enqueue/execute.)"
            )
    managed = context._strategy == ExecutionContextAllocationStrategy.USER_MANAGED
    if managed and context._block[1] < context._needed():
        # NVIDIA's words for this case are not known.
        return f"{_CHECK}device memory is not set. Call setDeviceMemoryV2 before enqueue/execute.)"
    if fault("enqueue-fails"):
        return f"{_WHO}Error Code 1: Cuda Runtime (an illegal memory access was encountered)"
    return None


def capture_problem(context: IExecutionContext) -> str | None:
    """Why it cannot be captured, or None."""
    if fault("not-capturable") or context._engine._streaming():
        return "The built TensorRT engine contains operations that are not permitted under CUDA graph capture mode."
    if not context._warm:
        return f"{_WHO}Error Code 1: Cuda Runtime (In isStreamCapturing at cudaDriverHelpers.cpp:233)"
    return None


def job(context: IExecutionContext) -> Callable[[], float | None]:
    """A run with what is set now, weights included: it returns milliseconds, or None when it was misused."""
    executor, needed, block = context._engine._executor, context._needed(), context._block
    shapes, addresses, busy = dict(context._shapes), dict(context._addresses), context._busy

    def run() -> float | None:
        if not busy.acquire(blocking=False):
            _spoil(executor, shapes, addresses)
            log.error(f"{_WHO}Error Code 1: Internal Error (one context used by two threads)")
            return None
        try:
            token = _stamp(block, needed)
            started = time.perf_counter()
            executor.run(shapes, addresses)
            spent = (time.perf_counter() - started) * 1e3
            # Another run in the same block meanwhile would have overwritten our activations.
            if token != _read(block, needed) or fault("nan"):
                _spoil(executor, shapes, addresses)
            if fault("rows-differ"):
                _tilt(executor, shapes, addresses)
        finally:
            busy.release()
        return spent

    return run


def _stamp(block: tuple[int, int], needed: int) -> bytes:
    """Write to the first and last bytes of the memory that the engine needs: it must be there, and ours alone."""
    token = np.random.default_rng().bytes(8)
    if block[1]:
        memory = at_address(block[0], needed)
        memory[:8] = memory[needed - 8 :] = token
    return token if block[1] else b""


def _read(block: tuple[int, int], needed: int) -> bytes:
    if not block[1]:
        return b""
    memory = at_address(block[0], needed)
    return bytes(memory[:8]) if memory[:8] == memory[needed - 8 :] else b"torn"


def _outputs(executor, shapes, addresses):
    for name, shape in executor.output_shapes(shapes).items():
        kind = {"FLOAT": np.float32, "HALF": np.float16}.get(executor.dtype(name).name)
        if kind is not None:
            yield np.frombuffer(at_address(addresses[name], executor.nbytes(name, shape)), kind).reshape(shape)


def _spoil(executor, shapes, addresses) -> None:
    """What overwritten activations give."""
    for array in _outputs(executor, shapes, addresses):
        array[...] = np.nan


def _tilt(executor, shapes, addresses) -> None:
    """Make each row of a batch a little different."""
    for array in _outputs(executor, shapes, addresses):
        array += 0.1 * np.arange(array.shape[0], dtype=array.dtype).reshape(-1, *[1] * (array.ndim - 1))
