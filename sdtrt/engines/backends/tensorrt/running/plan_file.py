"""Plan files: the checks before TensorRT reads one, and the record beside each plan that sdtrt builds.

A plan starts with "ftrt"; bytes 24 to 27 are the four numbers of the TensorRT version that wrote it. A plan of another
version is refused with both versions, where TensorRT's own message has a tag mismatch.
"""

import re
from pathlib import Path

from sdtrt.engines.backends.tensorrt.cuda import Device
from sdtrt.errors import EngineError
from sdtrt.system.json_records import Record, read

PLAN = "engine.plan"
RECORD = "engine.json"
FORMAT_VERSION = 1
_MAGIC = b"ftrt"
_HEADER_BYTES = 28
ShapeRange = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]


class PlanRecord(Record):
    """How a plan was built; `profiles` are (min, opt, max) shapes of the dynamic inputs."""

    format: int = FORMAT_VERSION
    tensorrt: str
    gpu: str
    sm: str
    onnx_sha256: str
    profiles: tuple[dict[str, ShapeRange], ...]
    version_compatible: bool = False
    hardware_compatibility: str = "none"
    refit: str = "none"
    stripped: bool = False
    seconds: float | None = None
    notes: tuple[str, ...] = ()


def parse_version(version: str) -> tuple[int, ...]:
    """The four numbers of "10.14.1.48.post1"; missing ones are 0."""
    numbers = [int(n) for n in re.findall(r"\d+", version.partition(".post")[0])[:4]]
    return (*numbers, 0, 0, 0, 0)[:4]


def read_version(path: Path, rebuild: str) -> tuple[int, ...]:
    """The four numbers of the TensorRT that wrote a plan; EngineError when the file is missing, cut off, or no plan."""
    try:
        with path.open("rb") as file:
            head = file.read(_HEADER_BYTES)
    except OSError as exc:
        raise _damaged(path, f"{exc.strerror}: {path}", rebuild) from exc
    if not head.startswith(_MAGIC) or len(head) < _HEADER_BYTES:
        raise _damaged(path, f"{path} starts with {head[:4]!r} and has {path.stat().st_size} bytes", rebuild)
    return tuple(head[24:_HEADER_BYTES])


def check_version(path: Path, runtime: str, rebuild: str, compatible: bool = False) -> None:
    """Check that a TensorRT release can load a plan.

    Args:
        path: the plan file.
        runtime: the version of the TensorRT that loads it.
        rebuild: the command that builds the plan again, for the error.
        compatible: whether the plan is version-compatible: then later releases of its major version load it.

    Raises:
        EngineError: the file is no plan, or was written by another TensorRT.
    """
    built, installed = read_version(path, rebuild), parse_version(runtime)
    if built == installed or (compatible and built[0] == installed[0] and built <= installed):
        return
    version = ".".join(map(str, built))
    raise EngineError(
        "the engine was built with another version of TensorRT",
        slug="plan-version",
        received=f"a plan of TensorRT {version}, loaded with TensorRT {runtime}",
        expected="the same version" if not compatible else f"TensorRT {built[0]}, {version} or later",
        hint=f"rebuild: {rebuild} --force, or pip install tensorrt=={version}",
    )


def check_gpu(record: PlanRecord, device: Device, rebuild: str) -> None:
    """EngineError when the plan was tuned for another GPU and not built to be portable to this one."""
    portable = {"same_compute_capability": device.sm == record.sm, "ampere_plus": float(device.sm) >= 8.0}
    if (record.gpu, record.sm) == (device.name, device.sm) or portable.get(record.hardware_compatibility, False):
        return
    raise EngineError(
        "the engine was built on another GPU",
        slug="plan-gpu",
        received=str(device),
        expected=f"{record.gpu}, sm {record.sm}",
        hint=f"rebuild: {rebuild} --force, or build with hardware_compatibility for both",
    )


def read_record(folder: Path, rebuild: str) -> PlanRecord:
    """The record beside a plan."""
    return read(folder / RECORD, PlanRecord, FORMAT_VERSION, EngineError, f"rebuild: {rebuild} --force")


def _damaged(path: Path, cause: str, rebuild: str) -> EngineError:
    return EngineError(
        f"the engine {path.name} cannot be loaded",
        slug="engine-damaged",
        received=cause,
        expected='a TensorRT plan, which starts with b"ftrt"',
        hint=f"rebuild: {rebuild} --force",
    )
