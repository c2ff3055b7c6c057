"""A plan in use: tensors in, fresh tensors out, from any thread. It knows the plan only, no component and no bundle."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sdtrt.engines.backends.tensorrt import cuda
from sdtrt.engines.backends.tensorrt.options import TrtOptions
from sdtrt.engines.backends.tensorrt.running import deserialize, optimization_profiles, stream_memory
from sdtrt.engines.backends.tensorrt.running.cuda_graphs import Graph, GraphCache, GraphStats, Key
from sdtrt.engines.backends.tensorrt.running.execution_context import Binding
from sdtrt.engines.backends.tensorrt.running.gpu_timer import GpuClock
from sdtrt.engines.backends.tensorrt.running.stream_memory import Block, StreamContext
from sdtrt.errors import EngineError

if TYPE_CHECKING:
    import tensorrt as trt
    import torch
    from torch import Tensor

_ALIGNMENT = 256  # of every address that TensorRT takes
STREAMED = "weights are streamed"


class _Thread:
    """What one thread keeps: a context for any shape, and those with graphs."""

    def __init__(self, session: Session) -> None:
        self.lane: StreamContext = stream_memory.lane(session.device)
        with cuda.cuda.use(self.lane.stream):  # the thread's device may be another one
            self.plain: Binding = session.bind()
        self.graphs = GraphCache(session.graph_capacity)
        self.lane.holders.add(self)

    def forget_block(self) -> None:
        self.graphs.clear()
        self.plain.block = None


class Session:
    """An engine with its contexts; `what` names it in errors.

    `generation` counts the changes of its weights: raise it by `weights_changed`, and graphs are captured anew.
    """

    def __init__(
        self, engine: trt.ICudaEngine, device: torch.device, options: TrtOptions, what: str, rebuild: str
    ) -> None:
        import tensorrt as trt

        names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
        inside = {n for n in names if engine.get_tensor_mode(n) == trt.TensorIOMode.INPUT}
        self.engine: trt.ICudaEngine = engine
        self.device, self.what, self.rebuild = device, what, rebuild
        self.inputs = tuple(n for n in names if n in inside)
        self.outputs = tuple(n for n in names if n not in inside)
        self.dtypes = {n: torch_type(engine.get_tensor_dtype(n), n, what) for n in names}
        self.profiles = optimization_profiles.of_engine(engine, self.inputs)
        self.activation_bytes: int = engine.device_memory_size_v2
        self.context_bytes: tuple[int, ...] = tuple(
            engine.get_device_memory_size_for_profile_v2(i) for i in range(engine.num_optimization_profiles)
        )
        self.stats = GraphStats()
        self.clock = GpuClock()
        self.generation = 0
        self.graph_capacity = options.cuda_graphs
        if self.graph_capacity and deserialize.streams_weights(engine):
            self.graph_capacity = 0
            self.stats.refused(STREAMED)
        self._threads: threading.local | None = threading.local()
        stream_memory.register(self)

    def run(self, tensors: Mapping[str, Tensor], clock: GpuClock | None = None) -> dict[str, Tensor]:
        """Run on contiguous tensors of the engine's types; the outputs belong to the caller. `clock` takes the time.

        Raises ShapeError when no profile fits and EngineError for a wrong tensor or a run that TensorRT refuses.
        """
        self._check(tensors)
        mine = self._mine()
        lane, caller = mine.lane, cuda.cuda.current_stream(self.device)
        shapes = {name: tuple(tensors[name].shape) for name in self.inputs}
        profile = optimization_profiles.choose(shapes, self.profiles, self.what, self.rebuild)
        key = (profile, tuple(shapes.items()))
        graph = mine.graphs.find(key, lane.block(), self.generation)
        clock = clock or self.clock
        if graph is not None:
            outputs = self._replay(graph, lane, tensors, clock)
        elif mine.graphs.wants(key):
            outputs = self._captured_or_plain(mine, key, tensors, clock)
        else:
            outputs = self._plain(mine, key, tensors, clock)
        caller.wait_stream(lane.stream)
        return outputs

    def bind(self) -> Binding:
        """A new context."""
        return Binding(self.engine, self.what, self.rebuild, self.outputs)

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

    def _mine(self) -> _Thread:
        if self._threads is None:
            raise EngineError(f"the engine of {self.what} is closed", slug="engine-closed", hint="load it again")
        found: _Thread | None = getattr(self._threads, "thread", None)
        if found is None:
            found = self._threads.thread = _Thread(self)
        return found

    def _captured_or_plain(
        self, mine: _Thread, key: Key, tensors: Mapping[str, Tensor], clock: GpuClock
    ) -> dict[str, Tensor]:
        """A graph needs a context and tensors of its own: where there is no memory for them, the call still runs."""
        try:
            return self._capture(mine, key, tensors, clock)
        except (EngineError, RuntimeError) as exc:
            mine.graphs.refuse(key)
            self.stats.refused(str(exc).strip().partition("\n")[0])
            return self._plain(mine, key, tensors, clock)

    def _plain(self, mine: _Thread, key: Key, tensors: Mapping[str, Tensor], clock: GpuClock) -> dict[str, Tensor]:
        """On the caller's tensors, nothing is copied."""
        lane = mine.lane
        inputs = {n: t if t.data_ptr() % _ALIGNMENT == 0 else t.clone() for n, t in tensors.items()}
        outputs = self.empty_outputs(mine.plain.shape(key[0], dict(key[1]), lane))
        self._follow(lane)
        with cuda.cuda.use(lane.stream):
            mine.plain.bind({**inputs, **outputs}, lane.block())
            begun = clock.start(lane.stream)
            mine.plain.enqueue(lane)
            clock.stop(begun, lane.stream)
        self.stats.count("plain")
        return outputs

    def _replay(
        self, graph: Graph, lane: StreamContext, tensors: Mapping[str, Tensor], clock: GpuClock
    ) -> dict[str, Tensor]:
        import torch

        outputs = {n: torch.empty_like(t) for n, t in graph.outputs.items()}
        self._follow(lane)
        with cuda.cuda.use(lane.stream):
            begun = clock.start(lane.stream)
            _copy(tensors, graph.inputs)
            graph.captured.replay()
            _copy(graph.outputs, outputs)
            clock.stop(begun, lane.stream)
        self.stats.count("replayed")
        return outputs

    def _capture(self, mine: _Thread, key: Key, tensors: Mapping[str, Tensor], clock: GpuClock) -> dict[str, Tensor]:
        """Run once without a graph, as TensorRT needs after a change of shapes, and capture the next."""
        import torch

        lane, block = mine.lane, mine.lane.block()
        lane.stream.synchronize()  # a graph that is given up for this one may be running
        self._follow(lane)
        with cuda.cuda.use(lane.stream):
            binding = self.bind()
            inputs = {n: torch.empty_like(t) for n, t in tensors.items()}
            static = self.empty_outputs(binding.shape(key[0], dict(key[1]), lane))
            binding.bind({**inputs, **static}, block)
            begun = clock.start(lane.stream)
            _copy(tensors, inputs)
            binding.enqueue(lane)
            clock.stop(begun, lane.stream)
        lane.stream.synchronize()
        captured = self._try_capture(mine, key, binding, block)
        self.stats.count("plain")
        if captured is not None:
            mine.graphs.add(key, Graph(binding, inputs, static, captured, block, self.generation))
            self.stats.count("captured")
        outputs = {n: torch.empty_like(t) for n, t in static.items()}
        self._follow(lane)
        with cuda.cuda.use(lane.stream):
            _copy(static, outputs)
        return outputs

    def _follow(self, lane: StreamContext) -> None:
        """Let the lane wait for the caller, who waits for it in turn: so tensors are reused only in that order."""
        lane.stream.wait_stream(cuda.cuda.current_stream(self.device))

    def _try_capture(self, mine: _Thread, key: Key, binding: Binding, block: Block) -> Any | None:
        """The graph, or None with the reason counted."""
        lane = mine.lane

        def enqueue() -> bool:
            return bool(binding.context.execute_async_v3(lane.stream.cuda_stream))

        try:
            with _capturing:
                captured = cuda.cuda.capture(lane.stream, enqueue)
            reason = "TensorRT refused a capture"
        except RuntimeError as exc:
            captured, reason = None, str(exc).strip().partition("\n")[0]
            lane.renew()
        if captured is None:
            mine.graphs.refuse(key)
            self.stats.refused(reason)
        return captured

    def _check(self, tensors: Mapping[str, Tensor]) -> None:
        """TensorRT takes addresses on trust: an int32 tensor in an int64 input would silently be garbage."""
        if tensors.keys() != set(self.inputs):
            raise _wrong(self.what, "inputs", ", ".join(sorted(tensors)), ", ".join(self.inputs))
        for name, tensor in tensors.items():
            if tensor.dtype != self.dtypes[name]:
                raise _wrong(self.what, f"type of {name}", tensor.dtype, self.dtypes[name])
            if tensor.device != self.device:
                raise _wrong(self.what, f"device of {name}", tensor.device, self.device)
            if not tensor.is_contiguous():
                raise _wrong(self.what, f"layout of {name}", f"strides {tensor.stride()}", "a contiguous tensor")


_capturing = threading.Lock()


def _copy(source: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> None:
    for name, tensor in target.items():
        tensor.copy_(source[name], non_blocking=True)


def _wrong(what: str, field: str, received: object, expected: object) -> EngineError:
    return EngineError(
        f"{what} cannot be run on these tensors: wrong {field}",
        slug="engine-binding",
        received=received,
        expected=expected,
        hint="pass tensors as the engine has them; its inputs are listed in engine.json and by `sdtrt analyze`",
    )


def torch_type(dtype: trt.DataType, name: str, what: str) -> torch.dtype:
    """The type that torch has for one of TensorRT; EngineError when it has none."""
    import tensorrt as trt
    import torch

    known = {
        trt.DataType.FLOAT: torch.float32,
        trt.DataType.HALF: torch.float16,
        trt.DataType.BF16: torch.bfloat16,
        trt.DataType.INT64: torch.int64,
        trt.DataType.INT32: torch.int32,
        trt.DataType.INT8: torch.int8,
        trt.DataType.UINT8: torch.uint8,
        trt.DataType.BOOL: torch.bool,
    }
    if dtype not in known:
        raise _wrong(what, f"type of {name}", dtype, "a type that torch has")
    return known[dtype]
