"""The files of one engine as trtexec and TREx write them, around layers that are given: root, times and metadata."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unet_onnx import SHAPES

RUNS = 100


@dataclass(frozen=True)
class Dump:
    """Paths of one engine's files."""

    onnx: Path
    graph: Path
    profile: Path
    timing: Path
    profile_metadata: Path
    build_metadata: Path


def save(
    folder: Path,
    name: str,
    version: str,
    layers: list[dict[str, Any]],
    timed: list[dict[str, Any]],
    times: list[float],
    profiles: int,
) -> Dump:
    """Write all files; `timed` are the layers of the profile that ran and `times` theirs."""
    paths = {
        key: folder / f"{name}.onnx.engine.{key.replace('_', '.')}.json"
        for key in ("graph", "profile", "timing", "profile_metadata", "build_metadata")
    }
    total = sum(times) or 1.0
    records: list[dict[str, Any]] = [{"count": RUNS}]
    for layer, ms in zip(timed, times, strict=True):
        figures = {"timeMs": ms * RUNS, "averageMs": ms, "medianMs": ms * 0.99, "percentage": 100 * ms / total}
        records.append({"name": layer["Name"], **figures})
    runs = [{"startComputeMs": i * 2.0, "computeMs": total * (1.02 + i % 7 / 1000)} for i in range(RUNS)]
    contents = {
        "graph": _root(version, layers, profiles),
        "profile": records,
        "timing": [{**r, "endComputeMs": r["startComputeMs"] + r["computeMs"]} for r in runs],
        "profile_metadata": _profile_metadata(version, total),
        "build_metadata": {
            "model_options": {"Format": "ONNX", "Model": f"{name}.onnx"},
            "build_options": {
                "Max batch": "explicit batch",
                "minTiming": "1",
                "avgTiming": "8",
                "Precision": "FP32+FP16",
            },
            "device_information": _DEVICE[version == "8"],
        },
    }
    for key, path in paths.items():
        path.write_text(json.dumps(contents[key], indent=1), encoding="utf-8")
    return Dump(folder / f"{name}.onnx", **paths)


_DEVICE = (
    {
        "Selected Device": "NVIDIA H100 80GB HBM3",
        "Compute Capability": 9.0,
        "SMs": 132.0,
        "Compute Clock Rate (GHz)": 1.98,
        "Memory Bus Width (bits)": 5120.0,
        "Memory Clock Rate (GHz)": 2.619,
    },
    {
        "Selected Device": "NVIDIA A100 80GB PCIe",
        "Compute Capability": 8.0,
        "SMs": 108.0,
        "Compute Clock Rate": 1.41,
        "Memory Bus Width": 5120.0,
        "Memory Clock Rate": 1.512,
    },
)


def _root(version: str, layers: list[dict[str, Any]], profiles: int) -> dict[str, Any]:
    names = [*SHAPES, "out_sample"]
    if version != "11":
        return {"Layers": layers, "Bindings": names}
    io = [_io_tensor(n, "Output" if n == "out_sample" else "Input", profiles) for n in names]
    return {"ProfilingVerbosity": "DETAILED", "Layers": layers, "I/O Tensors": io, "Engine Metadata": {}}


def _io_tensor(name: str, mode: str, profiles: int) -> dict[str, Any]:
    shape = list(SHAPES.get(name, SHAPES["sample"]))
    info = {"MinShape": shape, "OptShape": shape, "MaxShape": shape, "Format": "Linear"}
    return {
        "Name": name,
        "IOMode": mode,
        "DataType": "Int64" if name == "timestep" else "Half",
        "Dimensions": [-1, *shape[1:]],
        "Location": "Device",
        "IsShapeInferenceIO": False,
        "ProfileInfo": [info] * profiles if mode == "Input" else [],
    }


def _profile_metadata(version: str, total: float) -> dict[str, Any]:
    spread = [total * factor for factor in (1.02, 1.03, 1.023, 1.023, 1.025, 1.026, 1.026)]
    return {
        "performance_summary": {
            "Throughput": 1000 / spread[2],
            "Latency": spread,
            "GPU Compute Time": spread,
            "Total Host Walltime": 3.0,
            "Total GPU Compute Time": 2.99,
        },
        "inference_options": {
            "Batch": "Explicit",
            "Input inference shape": ",".join(f"{n}={'x'.join(map(str, s))}" for n, s in SHAPES.items()),
            "Iterations": "10",
            "CUDA Graph": "Enabled",
            "Spin-wait": "Enabled",
        },
        "device_information": _DEVICE[version == "8"],
    }
