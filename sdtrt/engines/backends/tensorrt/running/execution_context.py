"""One execution context: its profile, shapes, addresses and memory are set only when they change."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING

from sdtrt.engines.backends.tensorrt.error_table import ErrorContext
from sdtrt.engines.backends.tensorrt.logger import collect_errors
from sdtrt.engines.backends.tensorrt.running.stream_memory import Block, StreamContext
from sdtrt.errors import EngineError

if TYPE_CHECKING:
    import tensorrt as trt
    from torch import Tensor

_creating = threading.Lock()


class ExecutionContext:
    """A context for one thread. TensorRT keeps the engine alive as long as it exists."""

    def __init__(self, engine: trt.ICudaEngine, error_context: ErrorContext, outputs: tuple[str, ...]) -> None:
        import tensorrt as trt

        self._error_context, self._outputs = error_context, outputs
        with collect_errors() as logged, _creating:
            context: trt.IExecutionContext | None = engine.create_execution_context(
                trt.ExecutionContextAllocationStrategy.USER_MANAGED
            )
        if context is None:
            raise self._error(logged, "no execution context could be created")
        self.trt_context: trt.IExecutionContext = context
        self.profile = 0  # of a new context
        self.block: Block | None = None
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._output_shapes: dict[str, tuple[int, ...]] = {}
        self._addresses: dict[str, int] = {}

    def set_shapes(
        self, profile: int, shapes: Mapping[str, tuple[int, ...]], stream_context: StreamContext
    ) -> dict[str, tuple[int, ...]]:
        """Set profile and input shapes; returns the shapes of the outputs."""
        with collect_errors() as logged:
            if profile != self.profile:
                self._shapes = {}  # TensorRT drops them with the profile
                try:
                    self.trt_context.set_optimization_profile_async(profile, stream_context.stream.cuda_stream)
                except RuntimeError as exc:
                    raise self._error([*logged, str(exc)], f"profile {profile} was refused") from exc
                self.profile = profile
            if self._shapes != shapes:
                self._shapes = {}
                for name, shape in shapes.items():
                    if not self.trt_context.set_input_shape(name, shape):
                        raise self._error(logged, f"{name} {shape} was refused in profile {profile}")
                try:
                    missing = self.trt_context.infer_shapes()
                except RuntimeError as exc:
                    raise self._error([*logged, str(exc)], "output shapes cannot be inferred") from exc
                if missing:
                    raise self._error(logged, f"shapes of {', '.join(missing)} are not set")
                self._shapes = dict(shapes)
                self._output_shapes = {n: tuple(self.trt_context.get_tensor_shape(n)) for n in self._outputs}
        return self._output_shapes

    def bind(self, tensors: Mapping[str, Tensor], block: Block) -> None:
        """Set the addresses of inputs and outputs, and the activation memory."""
        if block is not self.block:
            self.trt_context.set_device_memory(block.address, block.size)
            self.block = block
        for name, tensor in tensors.items():
            address = tensor.data_ptr()
            if self._addresses.get(name) != address:
                with collect_errors() as logged:
                    accepted = self.trt_context.set_tensor_address(name, address)
                if not accepted:
                    raise self._error(logged, f"the address of {name} was refused")
                self._addresses[name] = address

    def enqueue(self, stream_context: StreamContext) -> None:
        """Enqueue one run on the stream; EngineError when TensorRT refuses."""
        with collect_errors() as logged:
            accepted = self.trt_context.execute_async_v3(stream_context.stream.cuda_stream)
        if not accepted:
            raise self._error(logged, "it was not put on the stream")

    def _error(self, logged: list[str], cause: str) -> Exception:
        fallback = EngineError(
            f"the engine of {self._error_context.name} failed: {cause}",
            slug="engine-failed",
            received="no message",
            expected="a run",
            hint="report it with this message",
        )
        return self._error_context.from_log(logged, fallback)
