"""A loaded plan: runs on tensors and returns new ones, from any thread. It knows neither component nor bundle."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from sdtrt.engines.backends.tensorrt import cuda
from sdtrt.engines.backends.tensorrt.error_table import ErrorContext
from sdtrt.engines.backends.tensorrt.options import TrtOptions
from sdtrt.engines.backends.tensorrt.running import deserialize, optimization_profiles, stream_memory
from sdtrt.engines.backends.tensorrt.running.cuda_graphs import CapturedGraph, GraphCache, GraphKey, GraphStats
from sdtrt.engines.backends.tensorrt.running.execution_context import ExecutionContext
from sdtrt.engines.backends.tensorrt.running.gpu_timer import GpuTimer
from sdtrt.engines.backends.tensorrt.running.stream_memory import StreamContext
from sdtrt.errors import EngineError

if TYPE_CHECKING:
    import tensorrt as trt
    import torch
    from torch import Tensor

_ALIGNMENT = 256  # of every address that TensorRT takes
STREAMED = "weights are streamed"


class _ThreadState:
    """The state of one thread: a context for any shape, and the contexts with CUDA graphs."""

    def __init__(self, session: Session) -> None:
        self.stream_context: StreamContext = stream_memory.stream_context(session.device)
        with cuda.runtime.use(self.stream_context.stream):  # the thread's current device may be another one
            self.context: ExecutionContext = session.new_context()
        self.graphs = GraphCache(session.graph_capacity, session.stats)
        self.stream_context.holders.add(self)

    def forget_block(self) -> None:
        self.graphs.clear()
        self.context.block = None


class Session:
    """An engine with its execution contexts.

    `generation` counts the changes of its weights: `weights_changed` raises it, and graphs are captured again.
    """

    def __init__(
        self, engine: trt.ICudaEngine, device: torch.device, options: TrtOptions, error_context: ErrorContext
    ) -> None:
        import tensorrt as trt

        names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
        inputs = {n for n in names if engine.get_tensor_mode(n) == trt.TensorIOMode.INPUT}
        self.engine: trt.ICudaEngine = engine
        self.device, self.error_context = device, error_context
        self.inputs = tuple(n for n in names if n in inputs)
        self.outputs = tuple(n for n in names if n not in inputs)
        self.dtypes = {n: torch_dtype(engine.get_tensor_dtype(n), n, error_context.name) for n in names}
        self.profiles = optimization_profiles.engine_profiles(engine, self.inputs)
        self.activation_bytes: int = engine.device_memory_size_v2
        self.context_bytes: tuple[int, ...] = tuple(
            engine.get_device_memory_size_for_profile_v2(i) for i in range(engine.num_optimization_profiles)
        )
        self.stats = GraphStats()
        self.timer = GpuTimer()
        self.generation = 0
        self.graph_capacity = options.cuda_graphs
        if self.graph_capacity and deserialize.streams_weights(engine):
            self.graph_capacity = 0
            self.stats.count_refusal(STREAMED)
        self._threads: threading.local | None = threading.local()
        stream_memory.register(self)

    def run(self, tensors: Mapping[str, Tensor], timer: GpuTimer | None = None) -> dict[str, Tensor]:
        """Run on contiguous tensors of the engine's types; the outputs belong to the caller. `timer` times the run.

        Raises ShapeError when no profile fits and EngineError for a wrong tensor or a run that TensorRT refuses.
        """
        self._check(tensors)
        state, timer = self._thread_state(), timer or self.timer
        shapes = {name: tuple(tensors[name].shape) for name in self.inputs}
        profile = optimization_profiles.choose(shapes, self.profiles, self.error_context)
        key = (profile, tuple(shapes.items()))
        graph = state.graphs.find(key, state.stream_context.block(), self.generation)
        caller = cuda.runtime.current_stream(self.device)
        if graph is not None:
            outputs = self._replay(graph, state.stream_context, tensors, timer)
        elif state.graphs.should_capture(key):
            try:
                outputs = self._capture(state, key, tensors, timer)
            except (EngineError, RuntimeError) as exc:  # a graph needs its own context and tensors, and so memory
                state.graphs.refuse(key, exc)
                outputs = self._run_plain(state, key, tensors, timer)
        else:
            outputs = self._run_plain(state, key, tensors, timer)
        caller.wait_stream(state.stream_context.stream)
        return outputs

    def new_context(self) -> ExecutionContext:
        """A new execution context."""
        return ExecutionContext(self.engine, self.error_context, self.outputs)

    def empty_outputs(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
        """Tensors for the engine to write to."""
        import torch

        return {n: torch.empty(shapes[n], dtype=self.dtypes[n], device=self.device) for n in self.outputs}

    def weights_changed(self) -> None:
        """After a refit: no graph of any thread is replayed again."""
        self.generation += 1

    def close(self) -> None:
        """Free contexts, graphs and the engine."""
        if self._threads is not None:
            self._threads = None
            stream_memory.unregister(self)
            del self.engine

    def _thread_state(self) -> _ThreadState:
        if self._threads is None:
            name = self.error_context.name
            raise EngineError(f"the engine of {name} is closed", slug="engine-closed", hint="load it again")
        state: _ThreadState | None = getattr(self._threads, "state", None)
        if state is None:
            state = self._threads.state = _ThreadState(self)
        return state

    def _run_plain(
        self, state: _ThreadState, key: GraphKey, tensors: Mapping[str, Tensor], timer: GpuTimer
    ) -> dict[str, Tensor]:
        stream_context = state.stream_context
        inputs = {n: t if t.data_ptr() % _ALIGNMENT == 0 else t.clone() for n, t in tensors.items()}
        outputs = self.empty_outputs(state.context.set_shapes(key[0], dict(key[1]), stream_context))
        with self._after_caller(stream_context):
            state.context.bind({**inputs, **outputs}, stream_context.block())
            with timer.time(stream_context.stream):
                state.context.enqueue(stream_context)
        self.stats.count("plain")
        return outputs

    def _replay(
        self, graph: CapturedGraph, stream_context: StreamContext, tensors: Mapping[str, Tensor], timer: GpuTimer
    ) -> dict[str, Tensor]:
        import torch

        outputs = {n: torch.empty_like(t) for n, t in graph.outputs.items()}
        with self._after_caller(stream_context), timer.time(stream_context.stream):
            _copy(tensors, graph.inputs)
            graph.cuda_graph.replay()
            _copy(graph.outputs, outputs)
        self.stats.count("replayed")
        return outputs

    def _capture(
        self, state: _ThreadState, key: GraphKey, tensors: Mapping[str, Tensor], timer: GpuTimer
    ) -> dict[str, Tensor]:
        """Run once without a graph, as TensorRT needs after a change of shapes, and capture a second run."""
        import torch

        stream_context, block = state.stream_context, state.stream_context.block()
        stream_context.stream.synchronize()  # the graph that is freed for this one may be running
        with self._after_caller(stream_context):
            context = self.new_context()
            inputs = {n: torch.empty_like(t) for n, t in tensors.items()}
            static = self.empty_outputs(context.set_shapes(key[0], dict(key[1]), stream_context))
            context.bind({**inputs, **static}, block)
            with timer.time(stream_context.stream):
                _copy(tensors, inputs)
                context.enqueue(stream_context)
        stream_context.stream.synchronize()
        cuda_graph = self._try_capture(state, key, context)
        self.stats.count("plain")
        if cuda_graph is not None:
            state.graphs.add(key, CapturedGraph(context, inputs, static, cuda_graph, block, self.generation))
            self.stats.count("captured")
        outputs = {n: torch.empty_like(t) for n, t in static.items()}
        with self._after_caller(stream_context):
            _copy(static, outputs)
        return outputs

    def _after_caller(self, stream_context: StreamContext) -> AbstractContextManager[None]:
        """Make the engine's stream current, ordered after the caller's work, whose memory it may reuse."""
        stream_context.stream.wait_stream(cuda.runtime.current_stream(self.device))
        return cuda.runtime.use(stream_context.stream)

    def _try_capture(self, state: _ThreadState, key: GraphKey, context: ExecutionContext) -> Any | None:
        """The graph of one run; None after a refusal, which excludes the shape."""
        stream_context = state.stream_context

        def enqueue() -> bool:
            return bool(context.trt_context.execute_async_v3(stream_context.stream.cuda_stream))

        try:
            with _capturing:
                cuda_graph = cuda.runtime.capture(stream_context.stream, enqueue)
        except RuntimeError as exc:
            state.graphs.refuse(key, exc)
            stream_context.renew_stream()
            return None
        if cuda_graph is None:
            state.graphs.refuse(key, "TensorRT refused a capture")
        return cuda_graph

    def _check(self, tensors: Mapping[str, Tensor]) -> None:
        """TensorRT gets bare addresses: it would read an int32 tensor in an int64 input without an error."""
        name = self.error_context.name
        if tensors.keys() != set(self.inputs):
            raise _wrong_tensor(name, "inputs", ", ".join(sorted(tensors)), ", ".join(self.inputs))
        for tensor_name, tensor in tensors.items():
            if tensor.dtype != self.dtypes[tensor_name]:
                raise _wrong_tensor(name, f"type of {tensor_name}", tensor.dtype, self.dtypes[tensor_name])
            if tensor.device != self.device:
                raise _wrong_tensor(name, f"device of {tensor_name}", tensor.device, self.device)
            if not tensor.is_contiguous():
                raise _wrong_tensor(name, f"layout of {tensor_name}", f"strides {tensor.stride()}", "contiguous")


_capturing = threading.Lock()


def _copy(source: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> None:
    for name, tensor in target.items():
        tensor.copy_(source[name], non_blocking=True)


def _wrong_tensor(name: str, field: str, received: object, expected: object) -> EngineError:
    return EngineError(
        f"{name} cannot be run on these tensors: wrong {field}",
        slug="engine-binding",
        received=received,
        expected=expected,
        hint="pass tensors as the engine has them; its inputs are listed in engine.json and by `sdtrt analyze`",
    )


def torch_dtype(dtype: trt.DataType, tensor_name: str, name: str) -> torch.dtype:
    """Torch's type for one of TensorRT; EngineError when torch has none."""
    import tensorrt as trt
    import torch

    dtypes = {
        trt.DataType.FLOAT: torch.float32,
        trt.DataType.HALF: torch.float16,
        trt.DataType.BF16: torch.bfloat16,
        trt.DataType.INT64: torch.int64,
        trt.DataType.INT32: torch.int32,
        trt.DataType.INT8: torch.int8,
        trt.DataType.UINT8: torch.uint8,
        trt.DataType.BOOL: torch.bool,
    }
    if dtype not in dtypes:
        raise _wrong_tensor(name, f"type of {tensor_name}", dtype, "a type that torch has")
    return dtypes[dtype]
