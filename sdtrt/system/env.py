"""Facts about this machine and its packages, each read in one place, printable for a bug report.

Nothing here imports torch or a vendor library: versions come from package metadata, GPUs from `nvml`, memory from
psutil. psutil knows neither the processor's model name nor the limit of a container: both are read from Linux's files.
"""

import os
import platform
import sys
from dataclasses import asdict
from importlib import metadata, util
from pathlib import Path
from typing import Any

from sdtrt.system import nvml

# Their versions decide whether an engine of another machine or day is still valid; `sdtrt doctor` prints them.
PACKAGES = (
    *("torch", "diffusers", "transformers", "onnx", "onnxruntime", "onnx-graphsurgeon", "polygraphy", "tensorrt"),
    "nvidia-modelopt",
)


# Compute capability of the first GPUs that multiply float8: Ada's; Hopper's is higher.
LEAST_SM_FP8 = (8, 9)


def version(package: str) -> str | None:
    """Installed version of a distribution, or None."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def importable(module: str) -> bool:
    """Whether a top-level module can be found, without importing it."""
    return util.find_spec(module) is not None


def cache_folder() -> Path:
    """The folder of files that may be deleted at any time: below XDG_CACHE_HOME, or ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sdtrt"


def memory_bytes() -> int:
    """Physical memory."""
    import psutil

    return int(psutil.virtual_memory().total)


def free_memory_bytes() -> int:
    """Memory that programs may still take, within the container's limit."""
    import psutil

    free = int(psutil.virtual_memory().available)
    try:
        group = Path("/sys/fs/cgroup")
        limit, used = (int((group / f"memory.{what}").read_text(encoding="ascii")) for what in ("max", "current"))
    except (OSError, ValueError):  # no such file, or no limit: "max"
        return free
    return min(free, max(0, limit - used))


def cpu_name() -> str:
    """The processor's model name on Linux, else the architecture."""
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass  # not Linux
    return platform.processor() or platform.machine()


def describe() -> dict[str, Any]:
    """This machine as JSON: in every manifest and benchmark, to say where figures were taken."""
    return {
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "cpu": cpu_name(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_bytes": memory_bytes(),
        "packages": {p: v for p in PACKAGES if (v := version(p))},
        "gpus": [asdict(gpu) for gpu in nvml.gpus()],
    }
