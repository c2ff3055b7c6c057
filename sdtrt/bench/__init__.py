"""bench(): speed and memory of a bundle next to eager diffusers, on the same device in the same run.

Rounds of the two pipelines alternate, and so does which one is first: other load of the machine affects both alike.
"""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch

from sdtrt import engines
from sdtrt.bench import fresh_process, pipelines
from sdtrt.bench.pipelines import Call, CallSettings, CallShape
from sdtrt.bench.record import Bench, BenchError, Case, ColdStart, Latency, PipelineTimes, Ratio
from sdtrt.bundle.bundle import Bundle
from sdtrt.errors import ConfigError
from sdtrt.pipelines.timed_call import timed
from sdtrt.plan.image_timing import ImageRun
from sdtrt.system import env, nvml

__all__ = ["Bench", "BenchError", "Case", "ColdStart", "Latency", "PipelineTimes", "Ratio", "bench"]

# Calls that are timed engine by engine: the one of median length is recorded.
TIMED_CALLS = 3


def bench(
    bundle: str | os.PathLike[str] | Bundle,
    *,
    sizes: Sequence[tuple[int, int]] = (),
    batches: Sequence[int] = (1,),
    steps: int = 20,
    runs: int = 10,
    callers: int = 1,
    guidance_scale: float | None = None,
    eager: bool = True,
    model: str | None = None,
    starts: int = 1,
    progress: Callable[[str, float], None] = lambda label, share: None,
) -> Bench:
    """Measure a bundle at every size with every batch.

    Args:
        bundle: Bundle or its folder.
        sizes: (width, height) in pixels; by default the optimum of the first profile.
        batches: Images per call.
        steps: Denoising steps.
        runs: Timed rounds, after one that is not timed; in each round every caller makes one call.
        callers: Threads that call the pipeline at the same time.
        guidance_scale: Guidance scale; by default the pipeline's.
        eager: Measure eager diffusers too.
        model: Hub id or folder of the checkpoint, if it has moved since the build.
        starts: Fresh processes per pipeline that measure cold start and memory.
        progress: Called with a label and the share that is done.

    Raises:
        ConfigError: A count is below its minimum.
        ShapeError: A size is outside the bundle's profiles.
        ModelError: Eager diffusers has no checkpoint.
        BenchError: A fresh process ended early.
    """
    if min(steps, runs, callers, *batches) < 1 or starts < 0:
        raise ConfigError("steps, runs, callers and batches are 1 or more", slug="bench-count")
    bundle = Bundle.open(bundle)
    best = bundle.manifest.shape_profiles[0].sizes("opt")
    shapes = tuple(
        CallShape(height=height, width=width, batch=batch, callers=callers)
        for width, height in sizes or [(best["W"], best["H"])]
        for batch in batches
    )
    settings = CallSettings(steps=steps, guidance_scale=guidance_scale, model=model)
    kinds = ("engines", "eager") if eager else ("engines",)
    total, done = len(kinds) * starts + len(shapes) * (runs + 1), 0

    def report(label: str, completed: int = 0) -> None:
        nonlocal done
        done += completed
        progress(label, done / total)

    cold: dict[str, tuple[ColdStart, ...]] = {}
    device: str | None = None
    for kind in kinds if starts else ():
        job = fresh_process.Job(bundle=str(bundle.path), device=device, settings=settings, shapes=shapes)
        cold[kind], device = _cold_starts(kind, job, starts, report)
    report("loading")
    engine_pipe, device = pipelines.open_engines(bundle)
    pipes = {"engines": engine_pipe}
    if eager:
        pipes["eager"] = pipelines.open_eager(bundle, model, device)
    load_average = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    with nvml.ClockSampler(nvml.gpu_uuid(device)) as clocks:
        cases = tuple(_measure_case(shape, pipes, settings, runs, report) for shape in shapes)
    manifest, backend = bundle.manifest, engines.load(bundle.manifest.backend)
    return Bench(
        bundle=bundle.path.name,
        model=manifest.model,
        family=manifest.family,
        backend=manifest.backend,
        backend_version=backend.version(),
        precision=manifest.precision,
        device=backend.device(backend.check_options(manifest.options)),
        steps=steps,
        runs=runs,
        eager_dtype=str(pipes["eager"].dtype).removeprefix("torch.") if eager else None,
        torch_threads=torch.get_num_threads(),
        machine=env.describe(),
        load_average=load_average,
        clocks=clocks.metadata(),
        starts=cold,
        cases=cases,
    )


Report = Callable[..., None]  # report(label, completed=0)


def _cold_starts(
    kind: str, job: fresh_process.Job, count: int, report: Report
) -> tuple[tuple[ColdStart, ...], str | None]:
    starts, device = [], None
    for _ in range(count):
        report(f"{kind}: a fresh process")
        start, device = fresh_process.run(job, lambda label: report(f"{kind}: {label}"))
        starts.append(start)
        report(f"{kind}: a fresh process", 1)
    return tuple(starts), device


def _measure_case(
    shape: CallShape, pipes: Mapping[str, Any], settings: CallSettings, runs: int, report: Report
) -> Case:
    calls = {kind: pipelines.make_call(pipe, settings, shape) for kind, pipe in pipes.items()}
    label = f"{shape.width}x{shape.height}, batch {shape.batch}"
    rounds = _alternate(calls, shape.callers, runs, lambda: report(label, 1))
    times = {
        kind: PipelineTimes(
            latency=Latency.of([s for _, calls_s in kind_rounds for s in calls_s]),
            rounds_s=tuple(round_s for round_s, _ in kind_rounds),
            images_per_s=shape.batch * shape.callers * runs / sum(round_s for round_s, _ in kind_rounds),
        )
        for kind, kind_rounds in rounds.items()
    }
    eager = times.get("eager")
    return Case(
        **shape.model_dump(),
        engines=times["engines"],
        eager=eager,
        ratio=Ratio.of(eager.rounds_s, times["engines"].rounds_s) if eager else None,
        image=_engine_times(pipes["engines"], calls["engines"], settings.steps, shape),
    )


def _alternate(
    calls: Mapping[str, Call], callers: int, runs: int, report: Callable[[], None]
) -> dict[str, list[tuple[float, list[float]]]]:
    """Seconds of each round of each pipeline, and of the calls in it; the first round is a warm-up."""
    rounds: dict[str, list[tuple[float, list[float]]]] = {kind: [] for kind in calls}
    # One pool for all rounds: an engine may keep contexts and CUDA graphs per thread.
    with ThreadPoolExecutor(callers) as pool:

        def timed(call: Call, seed: int) -> float:
            started = time.perf_counter()
            call(seed)
            return time.perf_counter() - started

        for run in range(runs + 1):
            for kind in sorted(calls, reverse=bool(run % 2)):
                started = time.perf_counter()
                futures = [pool.submit(timed, calls[kind], run * callers + i) for i in range(callers)]
                calls_s = [future.result() for future in futures]
                if run:
                    rounds[kind].append((time.perf_counter() - started, calls_s))
            report()
    return rounds


def _engine_times(pipe: object, call: Call, steps: int, shape: CallShape) -> ImageRun:
    """Times of each engine in one call; measured apart, since timing makes each GPU engine wait for its end."""
    size = {"steps": steps, "images": shape.batch, "height": shape.height, "width": shape.width}
    image_runs = [timed(pipe, lambda: call(0), **size)[1] for _ in range(TIMED_CALLS)]
    return sorted(image_runs, key=lambda run: run.wall_ms)[TIMED_CALLS // 2]
