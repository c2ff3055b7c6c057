"""Timing an engine: whole runs as they are served, then each layer in a context of its own.

A profiler puts events around every layer and keeps them from overlapping, so its times are never mixed with those of
whole runs, and its context is thrown away: a profiler cannot be taken off again.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sdtrt.engines.backends.tensorrt import cuda, error_table
from sdtrt.engines.backends.tensorrt.logger import errors
from sdtrt.engines.backends.tensorrt.running import optimization_profiles, stream_memory
from sdtrt.engines.backends.tensorrt.running.gpu_timer import GpuClock
from sdtrt.engines.backends.tensorrt.running.session import Session
from sdtrt.errors import EngineError
from sdtrt.system.nvml import ClockSampler

if TYPE_CHECKING:
    import tensorrt as trt
    from torch import Tensor


@dataclass(frozen=True)
class Run:
    """One whole run, in milliseconds since the first: the call on the host, the work on the GPU."""

    called: float
    returned: float
    begun: float
    ended: float

    @property
    def compute_ms(self) -> float:
        """Time on the GPU."""
        return self.ended - self.begun


@dataclass(frozen=True)
class Measured:
    """What was measured at one set of shapes.

    `layers` has for each layer, in the profiler's order, its name and one time per run; a name may come twice.
    `inspector` is TensorRT's own JSON.
    """

    shapes: dict[str, tuple[int, ...]]
    profile: int
    runs: tuple[Run, ...]
    layers: tuple[tuple[str, tuple[float, ...]], ...]
    inspector: str
    clocks: dict[str, Any]
    host_seconds: float
    graphs: dict[str, Any]


def measure(session: Session, tensors: Mapping[str, Tensor], runs: int, warmup: int, uuid: str | None) -> Measured:
    """Time `runs` runs after `warmup` others; no other thread may use the session meanwhile."""
    for _ in range(max(warmup, 2)):  # the second captures a graph
        session.run(tensors)
    clock = GpuClock(kept=None)
    lane = stream_memory.lane(session.device)
    calls = []
    with ClockSampler(uuid) as clocks:
        origin = cuda.cuda.new_event()
        origin.record(lane.stream)
        started = time.perf_counter()
        for _ in range(runs):
            called = time.perf_counter()
            session.run(tensors, clock)
            calls.append((called, time.perf_counter()))
        events = clock.take()
        host_seconds = time.perf_counter() - started
    shapes = {n: tuple(tensors[n].shape) for n in session.inputs}
    profile = optimization_profiles.choose(shapes, session.profiles, session.what, session.rebuild)
    layers, inspector = _layers(session, profile, shapes, tensors, runs, warmup)
    return Measured(
        shapes=shapes,
        profile=profile,
        runs=tuple(
            Run(
                (called - started) * 1e3,
                (returned - started) * 1e3,
                float(origin.elapsed_time(begun)),
                float(origin.elapsed_time(ended)),
            )
            for (called, returned), (begun, ended) in zip(calls, events, strict=True)
        ),
        layers=layers,
        inspector=inspector,
        clocks=clocks.metadata(),
        host_seconds=host_seconds,
        graphs=session.stats.as_json(),
    )


def _layers(
    session: Session,
    profile: int,
    shapes: Mapping[str, tuple[int, ...]],
    tensors: Mapping[str, Tensor],
    runs: int,
    warmup: int,
) -> tuple[tuple[tuple[str, tuple[float, ...]], ...], str]:
    """Layer times, and the inspector's text for these shapes."""
    lane = stream_memory.lane(session.device)
    with cuda.cuda.use(lane.stream):
        binding = session.bind()
        outputs = session.empty_outputs(binding.shape(profile, shapes, lane))
        inputs = {n: t.clone() for n, t in tensors.items()}
        binding.bind({**inputs, **outputs}, lane.block())
        context: trt.IExecutionContext = binding.context
        inspector = _inspect(session.engine, context)
        profiler = _profiler()
        context.profiler = profiler
        context.enqueue_emits_profile = False  # enqueue stays asynchronous, and the times are fetched below
        seen: list[list[tuple[str, float]]] = []
        for _ in range(warmup + runs):
            profiler.records = []
            binding.enqueue(lane)
            lane.stream.synchronize()
            with errors() as logged:
                reported = context.report_to_profiler()
            if not reported:
                raise _unreported(session, logged)
            seen.append(profiler.records)
        del context, binding  # before its profiler
    return _by_layer(seen[warmup:]), inspector


def _by_layer(seen: list[list[tuple[str, float]]]) -> tuple[tuple[str, tuple[float, ...]], ...]:
    """One entry per layer with the times of all runs; layers of one name are told apart by their order in a run."""
    times: dict[tuple[str, int], list[float]] = {}
    for records in seen:
        counts: dict[str, int] = {}
        for name, ms in records:
            number = counts.get(name, 0)
            counts[name] = number + 1
            times.setdefault((name, number), []).append(ms)
    return tuple((name, tuple(spent)) for (name, _), spent in times.items())


def _inspect(engine: trt.ICudaEngine, context: trt.IExecutionContext) -> str:
    """Layers with real sizes: without a context all profiles are listed, and sizes that vary are -1."""
    import tensorrt as trt

    inspector: trt.EngineInspector = engine.create_engine_inspector()
    inspector.execution_context = context
    text: str = inspector.get_engine_information(trt.LayerInformationFormat.JSON)
    return text


def _profiler() -> Any:
    import tensorrt as trt

    class Profiler(trt.IProfiler):
        def __init__(self) -> None:
            trt.IProfiler.__init__(self)
            self.records: list[tuple[str, float]] = []

        def report_layer_time(self, layer_name: str, ms: float) -> None:
            self.records.append((layer_name, max(float(ms), 0.0)))

    return Profiler()


def _unreported(session: Session, logged: list[str]) -> Exception:
    return error_table.from_log(
        logged,
        session.what,
        rebuild=session.rebuild,
        otherwise=EngineError(
            f"the layers of {session.what} were not timed",
            slug="engine-profile",
            received="report_to_profiler said no",
            expected="a time for every layer",
            hint="report it with this message",
        ),
    )
