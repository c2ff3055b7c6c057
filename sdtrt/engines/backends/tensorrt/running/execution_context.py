"""One execution context, with its profile, shapes, addresses and memory: set only when they change."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING

from sdtrt.engines.backends.tensorrt import error_table
from sdtrt.engines.backends.tensorrt.logger import errors
from sdtrt.engines.backends.tensorrt.running.stream_memory import Block, StreamContext
from sdtrt.errors import EngineError

if TYPE_CHECKING:
    import tensorrt as trt
    from torch import Tensor

_creating = threading.Lock()


class Binding:
    """A context for one thread. The engine must outlive it; TensorRT sees to that."""

    def __init__(self, engine: trt.ICudaEngine, what: str, rebuild: str, outputs: tuple[str, ...]) -> None:
        import tensorrt as trt

        self._what, self._rebuild, self._outputs = what, rebuild, outputs
        with errors() as logged, _creating:
            context: trt.IExecutionContext | None = engine.create_execution_context(
                trt.ExecutionContextAllocationStrategy.USER_MANAGED
            )
        if context is None:
            raise self._error(logged, "no execution context could be made")
        self.context: trt.IExecutionContext = context
        self.profile = 0  # the one that a new context has
        self.block: Block | None = None
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._output_shapes: dict[str, tuple[int, ...]] = {}
        self._addresses: dict[str, int] = {}

    def shape(
        self, profile: int, shapes: Mapping[str, tuple[int, ...]], lane: StreamContext
    ) -> dict[str, tuple[int, ...]]:
        """Set profile and input shapes; returns the shapes of the outputs."""
        with errors() as logged:
            if profile != self.profile:
                self._shapes = {}  # a switch makes TensorRT forget them
                try:
                    self.context.set_optimization_profile_async(profile, lane.stream.cuda_stream)
                except RuntimeError as exc:
                    raise self._error([*logged, str(exc)], f"profile {profile} was refused") from exc
                self.profile = profile
            if self._shapes != shapes:
                self._shapes = {}
                for name, shape in shapes.items():
                    if not self.context.set_input_shape(name, shape):
                        raise self._error(logged, f"{name} {shape} was refused in profile {profile}")
                try:
                    missing = self.context.infer_shapes()
                except RuntimeError as exc:
                    raise self._error([*logged, str(exc)], "output shapes cannot be told") from exc
                if missing:
                    raise self._error(logged, f"shapes of {', '.join(missing)} are not set")
                self._shapes = dict(shapes)
                self._output_shapes = {n: tuple(self.context.get_tensor_shape(n)) for n in self._outputs}
        return self._output_shapes

    def bind(self, tensors: Mapping[str, Tensor], block: Block) -> None:
        """Set the addresses of inputs and outputs, and the activation memory."""
        if block is not self.block:
            self.context.set_device_memory(block.address, block.size)
            self.block = block
        for name, tensor in tensors.items():
            address = tensor.data_ptr()
            if self._addresses.get(name) != address:
                with errors() as logged:
                    accepted = self.context.set_tensor_address(name, address)
                if not accepted:
                    raise self._error(logged, f"the address of {name} was refused")
                self._addresses[name] = address

    def enqueue(self, lane: StreamContext) -> None:
        """Put one run on the lane's stream; EngineError when TensorRT refuses."""
        with errors() as logged:
            accepted = self.context.execute_async_v3(lane.stream.cuda_stream)
        if not accepted:
            raise self._error(logged, "it was not put on the stream")

    def _error(self, logged: list[str], cause: str) -> Exception:
        return error_table.from_log(
            logged,
            self._what,
            rebuild=self._rebuild,
            otherwise=EngineError(
                f"the engine of {self._what} failed: {cause}",
                slug="engine-failed",
                received="no message",
                expected="a run",
                hint="report it with this message",
            ),
        )
