"""Peak rates of a device: from a JSON file of measured peaks, else from the vendor's data sheet by name.

The percentages of peak, the bound and the milliseconds that a perfect kernel would save are computed from them. For a
device that is neither measured nor listed they are unknown.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from pydantic import Field, field_validator

from sdtrt.errors import ConfigError
from sdtrt.plan.layers import Kind, base_type
from sdtrt.system.files import write_text
from sdtrt.system.json_records import Record, read

FORMAT_VERSION = 1
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
MATRIX_KINDS: frozenset[Kind] = frozenset({"conv", "gemm", "attention"})
COMPUTE_KINDS: frozenset[Kind] = MATRIX_KINDS | {"norm", "pointwise"}
# A kernel that does nothing takes about this long between its events on a GPU; a layer cannot be faster.
GPU_LAUNCH_US = 2.0

# From NVIDIA's data sheets and architecture papers: dense, boost clock, no sparsity. A device is found by words of the
# name that its driver gives it; the first line whose words are all there counts, so longer lists of words stand first.
# TFLOP/s of the matrix units by type, TFLOP/s of plain float32, GB/s of memory. float32 matmuls run as TF32 where the
# units have it, which TensorRT allows by default. GeForce figures are those of float16 accumulation.
MATRIX_DTYPES = ("float32", "float16", "bfloat16", "float8", "int8", "float4")
DEVICES: tuple[tuple[tuple[str, ...], tuple[float | None, ...], float, float], ...] = (
    (("B200",), (1125.0, 2250.0, 2250.0, 4500.0, 4500.0, 9000.0), 75.0, 8000.0),
    (("H200", "NVL"), (418.0, 835.5, 835.5, 1671.0, 1671.0, None), 60.0, 4800.0),
    (("H200",), (494.7, 989.4, 989.4, 1978.9, 1978.9, None), 66.9, 4800.0),
    (("H100", "PCIe"), (378.0, 756.0, 756.0, 1513.0, 1513.0, None), 51.2, 2000.0),
    (("H100", "NVL"), (418.0, 835.5, 835.5, 1671.0, 1671.0, None), 60.0, 3938.0),
    (("H100",), (494.7, 989.4, 989.4, 1978.9, 1978.9, None), 66.9, 3350.0),
    (("A100", "SXM", "80GB"), (156.0, 312.0, 312.0, None, 624.0, None), 19.5, 2039.0),
    (("A100", "80GB"), (156.0, 312.0, 312.0, None, 624.0, None), 19.5, 1935.0),
    (("A100",), (156.0, 312.0, 312.0, None, 624.0, None), 19.5, 1555.0),
    (("L40S",), (183.0, 362.0, 362.0, 733.0, 733.0, None), 91.6, 864.0),
    (("L40",), (90.5, 181.0, 181.0, 362.0, 362.0, None), 90.5, 864.0),
    (("L4",), (60.0, 121.0, 121.0, 242.5, 242.5, None), 30.3, 300.0),
    (("RTX 6000 Ada",), (182.1, 364.2, 364.2, 728.5, 728.5, None), 91.1, 960.0),
    (("A6000",), (77.4, 154.8, 154.8, None, 309.7, None), 38.7, 768.0),
    (("A10",), (62.5, 125.0, 125.0, None, 250.0, None), 31.2, 600.0),
    (("RTX 5090",), (104.8, 419.0, 209.5, 838.0, 838.0, 1676.0), 104.8, 1792.0),
    (("RTX 4090",), (82.6, 330.3, 165.2, 660.6, 660.6, None), 82.6, 1008.0),
    (("RTX 3090",), (35.6, 142.0, 71.0, None, 284.0, None), 35.6, 936.0),
    (("RTX 3080",), (29.8, 119.0, 59.5, None, 238.0, None), 29.8, 760.0),
    (("V100",), (None, 125.0, None, None, None, None), 15.7, 900.0),
    (("T4",), (None, 65.0, None, None, 130.0, None), 8.1, 320.0),
)


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
