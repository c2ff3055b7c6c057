"""Peak rates of a device: from a JSON file of measured peaks, else from the vendor's data sheet by name.

The percentages of peak, the bound and the milliseconds that a perfect kernel would save are computed from them. For a
device that is neither measured nor listed they are unknown.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from pydantic import Field, field_validator

from sdtrt.analysis.device_specs import DEVICES, MATRIX_DTYPES
from sdtrt.errors import ConfigError
from sdtrt.plan.layers import Kind, base_type
from sdtrt.system.files import write_text
from sdtrt.system.json_records import Record, read

FORMAT_VERSION = 1
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
MATRIX_KINDS: frozenset[Kind] = frozenset({"conv", "gemm", "attention"})
# A kernel that does nothing takes about this long between its events on a GPU; a layer cannot be faster.
GPU_LAUNCH_US = 2.0


class DevicePeaksError(ConfigError):
    """A file of peaks cannot be read."""

    slug = "peaks"


class DevicePeaks(Record):
    """Peak rates of one device. `matrix_tflops` by type ("float16"); `vector_tflops` is that of plain float32.

    Variants of a type ("float8_e4m3fn", "float8_e5m2") are as fast as it.
    """

    format: int = FORMAT_VERSION
    device: str
    source: str
    matrix_tflops: dict[str, Positive] = {}
    vector_tflops: Positive | None = None
    gb_per_s: Positive | None = None
    launch_us: Positive | None = None

    @field_validator("matrix_tflops")
    @classmethod
    def _by_type(cls, rates: dict[str, float]) -> dict[str, float]:
        return {base_type(name): rate for name, rate in rates.items()}

    def tflops(self, kind: str, precision: str | None) -> float | None:
        """Peak for a layer of this kind: of matrix units in its type for `MATRIX_KINDS`, else of plain arithmetic."""
        if kind in MATRIX_KINDS:
            return self.matrix_tflops.get(base_type(precision))
        return self.vector_tflops

    def save(self, path: Path) -> None:
        """Write as JSON."""
        write_text(path, self.model_dump_json(indent=1) + "\n")

    @classmethod
    def load(cls, path: Path) -> DevicePeaks:
        """Read a JSON file; DevicePeaksError names what is wrong with it."""
        return read(path, cls, FORMAT_VERSION, DevicePeaksError, "write one with: sdtrt doctor --peaks FILE")


def peaks_of(device: str | None, metadata: Mapping[str, Mapping[str, object]] | None = None) -> DevicePeaks | None:
    """Data-sheet figures of a device by the name that its driver gives it, or None when it is not listed.

    Of an unlisted GPU whose trtexec metadata has bus width and memory clock, the bandwidth is known:
    2 x clock x width / 8, since its memory transfers twice a cycle.
    """
    specs = next((row for row in DEVICES if all(word in (device or "") for word in row[0])), None)
    if specs is not None:
        words, matrix, vector, bandwidth = specs
        return DevicePeaks(
            device=device or " ".join(words),
            source="data sheet",
            matrix_tflops={d: v for d, v in zip(MATRIX_DTYPES, matrix, strict=True) if v is not None},
            vector_tflops=vector,
            gb_per_s=bandwidth,
            launch_us=GPU_LAUNCH_US,
        )
    facts = (metadata or {}).get("device", {})
    width = facts.get("Memory Bus Width (bits)", facts.get("Memory Bus Width"))
    clock = facts.get("Memory Clock Rate (GHz)", facts.get("Memory Clock Rate"))
    if isinstance(width, int | float) and isinstance(clock, int | float) and width > 0 and clock > 0:
        source, bandwidth = "memory clock and bus width", width / 8 * clock * 2
        return DevicePeaks(device=device or "GPU", source=source, gb_per_s=bandwidth, launch_us=GPU_LAUNCH_US)
    return None
