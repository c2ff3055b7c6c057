"""How fast a bundle serves, against eager diffusers on the same device in the same run.

Both pipelines take turns, and take turns at being first, so that whatever else the machine does falls on both.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from sdtrt import engines
from sdtrt.bench import fresh_process, pipelines
from sdtrt.bench.pipelines import Call, Settings, Shape
from sdtrt.bench.record import Bench, BenchError, Case, Latency, Ratio, Served, Start
from sdtrt.bundle.bundle import Bundle
from sdtrt.errors import ConfigError
from sdtrt.pipelines import load
from sdtrt.plan.image_timing import ImageRun
from sdtrt.system import env, nvml

__all__ = ["Bench", "BenchError", "Case", "Latency", "Ratio", "Served", "Start", "bench"]

Progress = Callable[[str, float], None]
# Calls that tell where an image's time goes: the one of median length is kept.
TIMED = 3


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
    progress: Progress = lambda label, share: None,
) -> Bench:
    """Measure a bundle at every size (width, height) with every batch; by default at its best size.

    `runs` rounds are timed after one that is not; in a round each of `callers` threads makes one call. `starts` fresh
    processes per pipeline tell cold starts and memory. `model` is where the checkpoint lies, if not where it was built
    from. Raises ShapeError for a size that was not built, ModelError without a checkpoint for eager, BenchError.
    """
    import torch

    if min(steps, runs, callers, *batches) < 1 or starts < 0:
        raise ConfigError("steps, runs, callers and batches are 1 or more", slug="bench-count")
    bundle = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle)
    best = bundle.manifest.shape_profiles[0].sizes("opt")
    shapes = tuple(
        Shape(height=height, width=width, batch=batch, callers=callers)
        for width, height in sizes or [(best["W"], best["H"])]
        for batch in batches
    )
    settings = Settings(steps=steps, guidance_scale=guidance_scale, model=model)
    kinds = ("engines", "eager") if eager else ("engines",)
    whole = len(kinds) * starts + len(shapes) * (runs + 1)
    done = 0

    def report(label: str, advance: int = 0) -> None:
        nonlocal done
        done += advance
        progress(label, done / whole)

    cold: dict[str, tuple[Start, ...]] = {}
    device: str | None = None
    for kind in kinds if starts else ():
        job = fresh_process.Job(
            bundle=str(bundle.path), device=device if kind == "eager" else None, settings=settings, shapes=shapes
        )
        found = []
        for _ in range(starts):
            report(f"{kind}: a fresh process")
            start, device = fresh_process.start(job, lambda label, kind=kind: report(f"{kind}: {label}"))  # type: ignore[misc]
            found.append(start)
            report(f"{kind}: a fresh process", 1)
        cold[kind] = tuple(found)
    report("loading")
    ours, device = pipelines.open_engines(bundle)
    pipes = {"engines": ours}
    if eager:
        pipes["eager"] = pipelines.open_eager(bundle, model, device)
    load_average = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    cases = []
    with nvml.ClockSampler(nvml.gpu_uuid(device)) as clocks:
        for shape in shapes:
            calls = {kind: pipelines.call_of(pipe, settings, shape) for kind, pipe in pipes.items()}
            label = f"{shape.width}x{shape.height}, batch {shape.batch}"
            rounds = _turns(calls, shape.callers, runs, lambda label=label: report(label, 1))  # type: ignore[misc]
            cases.append(_case(shape, rounds, _image(ours, calls["engines"], steps, shape)))
    manifest, backend = bundle.manifest, engines.load(bundle.manifest.backend)
    return Bench(
        bundle=bundle.path.name,
        model=manifest.model,
        family=manifest.family,
        backend=manifest.backend,
        backend_version=backend.version(),
        precision=manifest.precision,
        device=backend.device(manifest.options),
        steps=steps,
        runs=runs,
        eager_dtype=str(pipes["eager"].dtype).removeprefix("torch.") if eager else None,
        torch_threads=torch.get_num_threads(),
        machine=env.describe(),
        load_average=load_average,
        clocks=clocks.metadata(),
        starts=cold,
        cases=tuple(cases),
    )


_Rounds = Mapping[str, list[tuple[float, list[float]]]]


def _turns(calls: Mapping[str, Call], callers: int, runs: int, done: Callable[[], None]) -> _Rounds:
    """Seconds of each round of each pipeline, and of the calls in it; the first round is thrown away."""
    rounds: dict[str, list[tuple[float, list[float]]]] = {kind: [] for kind in calls}
    with ThreadPoolExecutor(callers) as pool:  # threads that stay: an engine may keep contexts and graphs for each

        def once(call: Call, seed: int) -> float:
            started = time.perf_counter()
            call(seed)
            return time.perf_counter() - started

        for run in range(runs + 1):
            for kind in sorted(calls, reverse=bool(run % 2)):
                started = time.perf_counter()
                waiting = [pool.submit(once, calls[kind], run * callers + i) for i in range(callers)]
                seconds = [future.result() for future in waiting]
                if run:
                    rounds[kind].append((time.perf_counter() - started, seconds))
            done()
    return rounds


def _image(pipe: object, call: Call, steps: int, shape: Shape) -> ImageRun:
    """Where the time of one call goes, alone: on a GPU engines wait for their own end meanwhile."""
    given = {"steps": steps, "images": shape.batch, "height": shape.height, "width": shape.width}
    timed = [load.timed(pipe, lambda: call(0), **given)[1] for _ in range(TIMED)]
    return sorted(timed, key=lambda run: run.wall_ms)[TIMED // 2]


def _case(shape: Shape, rounds: _Rounds, image: ImageRun) -> Case:
    served = {
        kind: Served(
            latency=Latency.of([s for _, seconds in found for s in seconds]),
            rounds_s=tuple(whole for whole, _ in found),
            images_per_s=shape.batch * shape.callers * len(found) / sum(whole for whole, _ in found),
        )
        for kind, found in rounds.items()
    }
    ours, eager = served["engines"], served.get("eager")
    return Case(
        **shape.model_dump(),
        engines=ours,
        eager=eager,
        ratio=Ratio.of(eager.rounds_s, ours.rounds_s) if eager else None,
        image=image,
    )
