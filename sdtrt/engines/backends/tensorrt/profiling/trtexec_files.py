"""What was measured, as the files that trtexec and TREx name, and as a plan read from those very files.

The files: `X.graph.json` (the inspector's text as it came), `X.profile.json` (trtexec --exportProfile),
`X.timing.json` (--exportTimes) and `X.profile.metadata.json` (TREx). Everything that makes layers of them is in
`sdtrt.readers.formats.tensorrt.reader`; here only what the files cannot hold is added: a time for every single run.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, median, quantiles
from typing import Any

from sdtrt.engines.backends.tensorrt.cuda import Device
from sdtrt.engines.backends.tensorrt.profiling.layer_times import Measured, Run
from sdtrt.engines.backends.tensorrt.running.optimization_profiles import by_x
from sdtrt.errors import PlanError
from sdtrt.plan.layers import Layer, Plan
from sdtrt.system.files import write_text


def to_plan(measured: Measured, device: Device, component: str, version: str, folder: Path | None, stem: str) -> Plan:
    """Write the four files as `folder/stem.*` (nowhere when it is None) and read them back as a plan."""
    with tempfile.TemporaryDirectory() as scratch:
        paths = write(measured, device, folder or Path(scratch), stem)
        plan = _read(paths, component, measured.profile)
    return plan.model_copy(
        update={
            "backend_version": version,
            "device": str(device.name),
            "layers": tuple(_with_runs(plan, measured)),
            "runs": len(measured.runs),
            "wall_times_ms": tuple(run.compute_ms for run in measured.runs),
            "metadata": {**plan.metadata, "cuda_graphs": measured.graphs},
        }
    )


def write(measured: Measured, device: Device, folder: Path, stem: str) -> tuple[Path, ...]:
    """Write the files and return their paths, the layers first."""
    folder.mkdir(parents=True, exist_ok=True)
    texts = {
        "graph": measured.inspector,
        "profile": json.dumps(profile_records(measured), indent=1),
        "timing": json.dumps([_timing(run) for run in measured.runs], indent=1),
        "profile.metadata": json.dumps(metadata(measured, device), indent=1),
    }
    paths = []
    for role, text in texts.items():
        paths.append(folder / f"{stem}.{role}.json")
        write_text(paths[-1], text)
    return tuple(paths)


def profile_records(measured: Measured) -> list[dict[str, Any]]:
    """What trtexec --exportProfile writes: the number of runs, then a record per layer."""
    total = sum(sum(times) for _, times in measured.layers)
    return [
        {"count": len(measured.runs)},
        *(
            {
                "name": name,
                "timeMs": sum(times),
                "averageMs": fmean(times),
                "medianMs": median(times),
                "percentage": 100 * sum(times) / total if total else 0.0,
            }
            for name, times in measured.layers
        ),
    ]


def _timing(run: Run) -> dict[str, float]:
    """A record of trtexec's --exportTimes; nothing is copied between host and GPU, so those parts take no time."""
    begun, ended = run.begun, run.ended
    return {
        "startEnqMs": run.called,
        "endEnqMs": run.returned,
        "startH2dMs": begun,
        "endH2dMs": begun,
        "startComputeMs": begun,
        "endComputeMs": ended,
        "startD2hMs": ended,
        "endD2hMs": ended,
        "h2dMs": 0.0,
        "computeMs": run.compute_ms,
        "d2hMs": 0.0,
        "latencyMs": run.compute_ms,
    }


def metadata(measured: Measured, device: Device) -> dict[str, dict[str, Any]]:
    """TREx's sections, with trtexec's names; clocks while it ran are in the device's."""
    compute = [run.compute_ms for run in measured.runs]
    enqueue = [run.returned - run.called for run in measured.runs]
    graphs = measured.graphs.get("replayed", 0) > 0
    return {
        "performance_summary": {
            "Throughput": len(compute) / measured.host_seconds if measured.host_seconds else None,
            "Latency": _spread(compute),
            "Enqueue Time": _spread(enqueue),
            "H2D Latency": [0.0] * 5,
            "GPU Compute Time": _spread(compute),
            "D2H Latency": [0.0] * 5,
            "Total Host Walltime": measured.host_seconds,
            "Total GPU Compute Time": sum(compute) / 1e3,
        },
        "inference_options": {
            "Batch": "Explicit",
            "Input inference shapes": ", ".join(f"{n}={by_x(s)}" for n, s in measured.shapes.items() if s),
            "Iterations": str(len(compute)),
            "Optimization Profile Index": str(measured.profile),
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
            **measured.clocks,
        },
    }


def _spread(values: Sequence[float]) -> list[float]:
    """Least, largest, mean, median and 99th percentile, as trtexec prints them."""
    percentile = quantiles(values, n=100, method="inclusive")[98] if len(values) > 1 else values[0]
    return [min(values), max(values), fmean(values), median(values), percentile]


def _read(paths: Sequence[Path], component: str, profile: int) -> Plan:
    from sdtrt.readers.documents import parse
    from sdtrt.readers.formats.tensorrt import reader

    documents = [parse(path) for path in paths]
    try:
        return reader.read(documents, component, profile)
    except PlanError as exc:
        if exc.slug != "plan-profile":
            raise
        return reader.read(documents, component, 0)  # the inspector lists the profile of its context, and no other


def _with_runs(plan: Plan, measured: Measured) -> list[Layer]:
    """Layers with a time per run, where the reader found their record; the tag of a profile may stand elsewhere."""
    from sdtrt.readers.formats.tensorrt.tensors import PROFILE

    waiting: dict[str, list[tuple[float, ...]]] = {}
    for name, times in measured.layers:
        waiting.setdefault(PROFILE.sub("", name), []).append(times)
    made = []
    for layer in plan.layers:
        found = waiting.get(PROFILE.sub("", layer.name)) if layer.timing is not None else None
        made.append(layer.model_copy(update={"times_ms": found.pop(0), "timing": None}) if found else layer)
    return made
