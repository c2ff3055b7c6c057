"""The times of an engine as the files of trtexec and TREx, and as the plan that is read from these files.

The files: `X.graph.json` (the inspector's JSON), `X.profile.json` (trtexec --exportProfile), `X.timing.json`
(--exportTimes) and `X.profile.metadata.json` (TREx). `sdtrt.readers.formats.tensorrt.reader` makes layers from them;
this file adds only what they cannot hold: a time for every single run.
"""

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, median, quantiles
from typing import Any

from sdtrt.engines.backends.tensorrt.profiling.layer_times import EngineTimings, RunTimes
from sdtrt.engines.backends.tensorrt.running.optimization_profiles import format_shape
from sdtrt.errors import PlanError
from sdtrt.plan.layers import Layer, Plan
from sdtrt.system.files import write_text


def to_plan(timings: EngineTimings, component: str, version: str, folder: Path | None, stem: str) -> Plan:
    """Write the four files and read them back as a plan.

    Args:
        timings: the times of the engine.
        component: the plan's component.
        version: the version of TensorRT.
        folder: the folder of the files; None keeps none of them.
        stem: the files are named `stem.graph.json` and so on.
    """
    with tempfile.TemporaryDirectory() as scratch:
        paths = write_files(timings, folder or Path(scratch), stem)
        plan = _read_plan(paths, component, timings.profile)
    return plan.model_copy(
        update={
            "backend_version": version,
            "device": timings.device.name,
            "layers": tuple(_with_run_times(plan, timings)),
            "runs": len(timings.runs),
            "wall_times_ms": tuple(run.compute_ms for run in timings.runs),
            "metadata": {**plan.metadata, "cuda_graphs": timings.graphs},
        }
    )


def write_files(timings: EngineTimings, folder: Path, stem: str) -> tuple[Path, ...]:
    """Write the files and return their paths, the inspector's first."""
    folder.mkdir(parents=True, exist_ok=True)
    texts = {
        "graph": timings.inspector,
        "profile": json.dumps(profile_records(timings), indent=1),
        "timing": json.dumps([_timing_record(run) for run in timings.runs], indent=1),
        "profile.metadata": json.dumps(metadata(timings), indent=1),
    }
    paths = tuple(folder / f"{stem}.{role}.json" for role in texts)
    for path, text in zip(paths, texts.values(), strict=True):
        write_text(path, text)
    return paths


def profile_records(timings: EngineTimings) -> list[dict[str, Any]]:
    """The records of trtexec --exportProfile: the number of runs, then one per layer."""
    total = sum(sum(times) for _, times in timings.layers)
    return [
        {"count": len(timings.runs)},
        *(
            {
                "name": name,
                "timeMs": sum(times),
                "averageMs": fmean(times),
                "medianMs": median(times),
                "percentage": 100 * sum(times) / total if total else 0.0,
            }
            for name, times in timings.layers
        ),
    ]


def _timing_record(run: RunTimes) -> dict[str, float]:
    """A record of trtexec's --exportTimes; copies between host and GPU take no time, since there are none."""
    start_ms, end_ms = run.compute_start_ms, run.compute_end_ms
    return {
        "startEnqMs": run.enqueue_start_ms,
        "endEnqMs": run.enqueue_end_ms,
        "startH2dMs": start_ms,
        "endH2dMs": start_ms,
        "startComputeMs": start_ms,
        "endComputeMs": end_ms,
        "startD2hMs": end_ms,
        "endD2hMs": end_ms,
        "h2dMs": 0.0,
        "computeMs": run.compute_ms,
        "d2hMs": 0.0,
        "latencyMs": run.compute_ms,
    }


def metadata(timings: EngineTimings) -> dict[str, dict[str, Any]]:
    """TREx's sections, with trtexec's names; clocks during the runs are in the section of the device."""
    device = timings.device
    compute = [run.compute_ms for run in timings.runs]
    enqueue = [run.enqueue_end_ms - run.enqueue_start_ms for run in timings.runs]
    graphs = timings.graphs.get("replayed", 0) > 0
    return {
        "performance_summary": {
            "Throughput": len(compute) / timings.host_seconds if timings.host_seconds else None,
            "Latency": _summary(compute),
            "Enqueue Time": _summary(enqueue),
            "H2D Latency": [0.0] * 5,
            "GPU Compute Time": _summary(compute),
            "D2H Latency": [0.0] * 5,
            "Total Host Walltime": timings.host_seconds,
            "Total GPU Compute Time": sum(compute) / 1e3,
        },
        "inference_options": {
            "Batch": "Explicit",
            "Input inference shapes": ", ".join(f"{n}={format_shape(s)}" for n, s in timings.shapes.items() if s),
            "Iterations": str(len(compute)),
            "Optimization Profile Index": str(timings.profile),
            "Streams": "1",
            "Data transfers": "Disabled",
            "CUDA Graph": "Enabled" if graphs else "Disabled",
            "Separate profiling": "Enabled",
        },
        "device_information": {
            "Selected Device": device.name,
            "Compute Capability": float(device.sm),
            "SMs": float(device.sms),
            "Device Global Memory": f"{device.memory_bytes >> 20} MiB",
            **timings.clocks,
        },
    }


def _summary(values: Sequence[float]) -> list[float]:
    """Minimum, maximum, mean, median and 99th percentile, as trtexec prints them."""
    percentile = quantiles(values, n=100, method="inclusive")[98] if len(values) > 1 else values[0]
    return [min(values), max(values), fmean(values), median(values), percentile]


def _read_plan(paths: Sequence[Path], component: str, profile: int) -> Plan:
    from sdtrt.readers.documents import parse
    from sdtrt.readers.formats.tensorrt import reader

    documents = [parse(path) for path in paths]
    try:
        return reader.read(documents, component, profile)
    except PlanError as exc:
        if exc.slug != "plan-profile":
            raise
        return reader.read(documents, component, 0)  # the inspector lists only the profile of its context


def _with_run_times(plan: Plan, timings: EngineTimings) -> list[Layer]:
    """Layers with a time per run, where the reader found their record; names are compared without profile tags."""
    from sdtrt.readers.formats.tensorrt.tensors import PROFILE

    times_by_name: dict[str, list[tuple[float, ...]]] = {}
    for name, times in timings.layers:
        times_by_name.setdefault(PROFILE.sub("", name), []).append(times)
    layers = []
    for layer in plan.layers:
        by_order = times_by_name.get(PROFILE.sub("", layer.name)) if layer.timing is not None else None
        layers.append(layer.model_copy(update={"times_ms": by_order.pop(0), "timing": None}) if by_order else layer)
    return layers
