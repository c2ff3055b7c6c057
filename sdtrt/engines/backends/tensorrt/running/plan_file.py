"""Plan files: what can be told before TensorRT is asked, and the record that lies beside each one we build.

A plan starts with "ftrt"; bytes 24 to 27 are the four numbers of the TensorRT that wrote it. So a plan of another
version is refused with both versions, where TensorRT itself would speak of tags.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from sdtrt.engines.backends.tensorrt.cuda import Device
from sdtrt.errors import EngineError
from sdtrt.system.json_records import Record, read

PLAN = "engine.plan"
RECORD = "engine.json"
FORMAT_VERSION = 1
_MAGIC = b"ftrt"
_HEADER_BYTES = 28
Shapes = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]


class PlanRecord(Record):
    """What a plan was built with and from; `profiles` are (min, opt, max) shapes of the inputs that vary."""

    format: int = FORMAT_VERSION
    tensorrt: str
    gpu: str
    sm: str
    onnx_sha256: str
    profiles: tuple[dict[str, Shapes], ...]
    version_compatible: bool = False
    hardware_compatibility: str = "none"
    refit: str = "none"
    stripped: bool = False
    seconds: float | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Header:
    """The first bytes of a plan."""

    version: tuple[int, int, int, int]

    def __str__(self) -> str:
        return ".".join(map(str, self.version))


def numbers(version: str) -> tuple[int, int, int, int]:
    """The four numbers of "10.14.1.48.post1"; those that are missing are 0."""
    found = [int(n) for n in re.findall(r"\d+", version.partition(".post")[0])[:4]]
    a, b, c, d = (*found, 0, 0, 0, 0)[:4]
    return a, b, c, d


def read_header(path: Path, rebuild: str) -> Header:
    """The header of a plan; EngineError when the file is missing, cut off, or no plan."""
    try:
        with path.open("rb") as file:
            head = file.read(_HEADER_BYTES)
    except OSError as exc:
        raise _damaged(path, f"{exc.strerror}: {path}", rebuild) from exc
    if not head.startswith(_MAGIC) or len(head) < _HEADER_BYTES:
        raise _damaged(path, f"{path} starts with {head[:4]!r} and has {path.stat().st_size} bytes", rebuild)
    return Header((head[24], head[25], head[26], head[27]))


def check_version(header: Header, runtime: str, rebuild: str, compatible: bool = False) -> None:
    """EngineError unless this TensorRT can load the plan: the same version, or a later one of a compatible plan."""
    mine = numbers(runtime)
    if header.version == mine or (compatible and header.version[0] == mine[0] and header.version <= mine):
        return
    raise EngineError(
        "the engine was built with another version of TensorRT",
        slug="plan-version",
        received=f"a plan of TensorRT {header}, loaded with TensorRT {runtime}",
        expected="the same version" if not compatible else f"TensorRT {header.version[0]}, {header} or later",
        hint=f"rebuild: {rebuild} --force, or pip install tensorrt=={header}",
    )


def check_gpu(record: PlanRecord, device: Device, rebuild: str) -> None:
    """EngineError when the plan was tuned for another GPU and not built to be portable to this one."""
    portable = {
        "none": False,
        "same_compute_capability": device.sm == record.sm,
        "ampere_plus": float(device.sm) >= 8.0,
    }
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
