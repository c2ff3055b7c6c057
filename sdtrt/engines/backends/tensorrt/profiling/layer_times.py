"""Timing an engine: whole runs as in production, then each layer in a separate execution context.

A profiler puts events around every layer and keeps layers from overlapping, so its times are never mixed with those of
whole runs. Its context is discarded, since a profiler cannot be detached.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sdtrt.engines.backends.tensorrt import cuda
from sdtrt.engines.backends.tensorrt.cuda import Device
from sdtrt.engines.backends.tensorrt.logger import collect_errors
from sdtrt.engines.backends.tensorrt.running import optimization_profiles, stream_memory
from sdtrt.engines.backends.tensorrt.running.gpu_timer import GpuTimer
from sdtrt.engines.backends.tensorrt.running.session import Session
from sdtrt.errors import EngineError
from sdtrt.system.nvml import ClockSampler

if TYPE_CHECKING:
    import tensorrt as trt
    from torch import Tensor


@dataclass(frozen=True)
class RunTimes:
    """One whole run, in milliseconds since the first: the call on the host and the work on the GPU."""

    enqueue_start_ms: float
    enqueue_end_ms: float
    compute_start_ms: float
    compute_end_ms: float

    @property
    def compute_ms(self) -> float:
        """Time on the GPU."""
        return self.compute_end_ms - self.compute_start_ms


@dataclass(frozen=True)
class EngineTimings:
    """The times of an engine at one set of shapes.

    `layers` has for each layer, in the profiler's order, its name and one time per run; a name may come twice.
    `inspector` is the JSON of TensorRT's engine inspector.
    """

    device: Device
    shapes: dict[str, tuple[int, ...]]
    profile: int
    runs: tuple[RunTimes, ...]
    layers: tuple[tuple[str, tuple[float, ...]], ...]
    inspector: str
    clocks: dict[str, Any]
    host_seconds: float
    graphs: dict[str, Any]


def time_engine(
    session: Session, tensors: Mapping[str, Tensor], runs: int, warmup: int, device: Device
) -> EngineTimings:
    """Time whole runs, then layers; no other thread may use the session at the same time.

    Args:
        session: the loaded engine.
        tensors: its inputs by name, on its device.
        runs: the number of timed runs.
        warmup: the number of runs before them, at least 2: the second captures a CUDA graph.
        device: the GPU, whose clocks are sampled while whole runs are timed.

    Raises:
        ShapeError: no optimization profile fits the inputs.
        EngineError: TensorRT refuses a run, or reports no layer times.
    """
    for _ in range(max(warmup, 2)):
        session.run(tensors)
    timer = GpuTimer(max_pending=None)
    calls = []
    with ClockSampler(device.uuid) as clocks:
        origin = cuda.runtime.new_event()
        origin.record(stream_memory.stream_context(session.device).stream)
        started = time.perf_counter()
        for _ in range(runs):
            call_start = time.perf_counter()
            session.run(tensors, timer)
            calls.append((call_start, time.perf_counter()))
        events = timer.drain()
        host_seconds = time.perf_counter() - started
    shapes = {n: tuple(tensors[n].shape) for n in session.inputs}
    profile = optimization_profiles.choose(shapes, session.profiles, session.error_context)
    layers, inspector = _time_layers(session, profile, tensors, runs, warmup)
    return EngineTimings(
        device=device,
        shapes=shapes,
        profile=profile,
        runs=tuple(
            RunTimes(
                (call_start - started) * 1e3,
                (call_end - started) * 1e3,
                float(origin.elapsed_time(compute_start)),
                float(origin.elapsed_time(compute_end)),
            )
            for (call_start, call_end), (compute_start, compute_end) in zip(calls, events, strict=True)
        ),
        layers=layers,
        inspector=inspector,
        clocks=clocks.metadata(),
        host_seconds=host_seconds,
        graphs=session.stats.as_json(),
    )


def _time_layers(
    session: Session, profile: int, tensors: Mapping[str, Tensor], runs: int, warmup: int
) -> tuple[tuple[tuple[str, tuple[float, ...]], ...], str]:
    """Layer times, and the inspector's JSON for the shapes of `tensors`."""
    stream_context = stream_memory.stream_context(session.device)
    with cuda.runtime.use(stream_context.stream):
        execution_context = session.new_context()
        shapes = {n: tuple(tensors[n].shape) for n in session.inputs}
        outputs = session.empty_outputs(execution_context.set_shapes(profile, shapes, stream_context))
        inputs = {n: t.clone() for n, t in tensors.items()}
        execution_context.bind({**inputs, **outputs}, stream_context.block())
        context: trt.IExecutionContext = execution_context.trt_context
        inspector = _inspect(session.engine, context)
        profiler = _layer_profiler()
        context.profiler = profiler
        context.enqueue_emits_profile = False  # enqueue stays asynchronous, and report_to_profiler fetches the times
        records_by_run: list[list[tuple[str, float]]] = []
        for _ in range(warmup + runs):
            profiler.records = []
            execution_context.enqueue(stream_context)
            stream_context.stream.synchronize()
            with collect_errors() as logged:
                reported = context.report_to_profiler()
            if not reported:
                fallback = EngineError(
                    f"the layers of {session.error_context.name} were not timed",
                    slug="engine-profile",
                    received="report_to_profiler returned False",
                    expected="a time for every layer",
                    hint="report it with this message",
                )
                raise session.error_context.from_log(logged, fallback)
            records_by_run.append(profiler.records)
        del context, execution_context  # before its profiler
    return _times_by_layer(records_by_run[warmup:]), inspector


def _times_by_layer(records_by_run: list[list[tuple[str, float]]]) -> tuple[tuple[str, tuple[float, ...]], ...]:
    """One entry per layer with the times of all runs; layers of one name differ by their order within a run."""
    times: dict[tuple[str, int], list[float]] = {}
    for records in records_by_run:
        counts: Counter[str] = Counter()
        for name, time_ms in records:
            times.setdefault((name, counts[name]), []).append(time_ms)
            counts[name] += 1
    return tuple((name, tuple(times_ms)) for (name, _), times_ms in times.items())


def _inspect(engine: trt.ICudaEngine, context: trt.IExecutionContext) -> str:
    """Layers with actual sizes: without a context all profiles are listed, and dynamic sizes are -1."""
    import tensorrt as trt

    inspector: trt.EngineInspector = engine.create_engine_inspector()
    inspector.execution_context = context
    text: str = inspector.get_engine_information(trt.LayerInformationFormat.JSON)
    return text


def _layer_profiler() -> Any:
    import tensorrt as trt

    class Profiler(trt.IProfiler):
        def __init__(self) -> None:
            trt.IProfiler.__init__(self)
            self.records: list[tuple[str, float]] = []

        def report_layer_time(self, layer_name: str, ms: float) -> None:
            self.records.append((layer_name, max(float(ms), 0.0)))

    return Profiler()
