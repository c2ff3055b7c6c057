"""What NVIDIA's management library reports of GPUs: names, memory in use, and clocks while something is timed.

The only file that imports `pynvml`. Without the package `nvidia-ml-py` or without a driver, everything here is empty.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from functools import lru_cache
from statistics import median
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

# Bits of NVML's reasons for clocks below their maximum; the first means no load.
REASONS = {
    0x001: "idle",
    0x002: "application clocks",
    0x004: "power cap",
    0x008: "hardware slowdown",
    0x010: "sync boost",
    0x020: "software thermal slowdown",
    0x040: "hardware thermal slowdown",
    0x080: "hardware power brake",
    0x100: "display clocks",
}
_SECONDS_BETWEEN = 0.02


@dataclass(frozen=True)
class Gpu:
    """One NVIDIA GPU as NVML describes it; `sm` is the compute capability, such as "9.0"."""

    name: str
    sm: str
    memory_bytes: int
    driver: str


@lru_cache(maxsize=1)
def gpus() -> tuple[Gpu, ...]:
    """NVIDIA GPUs that NVML lists."""
    pynvml = _library()
    if pynvml is None:
        return ()
    return tuple(
        Gpu(
            name=pynvml.nvmlDeviceGetName(handle),
            sm="{}.{}".format(*pynvml.nvmlDeviceGetCudaComputeCapability(handle)),
            memory_bytes=int(pynvml.nvmlDeviceGetMemoryInfo(handle).total),
            driver=pynvml.nvmlSystemGetDriverVersion(),
        )
        for handle in _device_handles(pynvml)
    )


def used_bytes() -> dict[str, int]:
    """Bytes in use on every GPU, by its UUID."""
    pynvml = _library()
    if pynvml is None:
        return {}
    try:
        handles = _device_handles(pynvml)
        return {pynvml.nvmlDeviceGetUUID(h): int(pynvml.nvmlDeviceGetMemoryInfo(h).used) for h in handles}
    except pynvml.NVMLError:
        return {}


def gpu_uuid(device: str | torch.device) -> str | None:
    """NVML's UUID of one of torch's devices; None for a CPU, and where torch does not know it."""
    import torch

    if torch.device(device).type != "cuda":
        return None
    uuid = getattr(torch.cuda.get_device_properties(device), "uuid", None)
    return None if uuid is None else f"GPU-{uuid}"


class ClockSampler:
    """Samples clocks, temperature, power and throttle reasons of one GPU while the `with` block runs.

    A time is not representative when the GPU was hot or its clocks were lowered.
    """

    def __init__(self, uuid: str | None) -> None:
        self._samples: list[tuple[int, int, int, int, float]] = []
        self._properties: dict[str, Any] = {}
        self._stop = threading.Event()
        self._handle = _device_handle(uuid)
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> ClockSampler:
        if self._handle is not None:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self._handle is not None:
            self._thread.join()

    def metadata(self) -> dict[str, Any]:
        """The GPU's properties under trtexec's names, and least, median and largest clocks; empty without NVML."""
        if not self._samples:
            return dict(self._properties)
        sm, memory, reasons, celsius, watts = zip(*self._samples, strict=True)
        names = [text for bit, text in REASONS.items() if any(r & bit for r in reasons) and text != "idle"]
        return {
            **self._properties,
            "SM Clock During Runs (MHz)": [min(sm), median(sm), max(sm)],
            "Memory Clock During Runs (MHz)": [min(memory), median(memory), max(memory)],
            "Throttle Reasons": names,
            "Temperature (C)": max(celsius),
            "Power (W)": round(max(watts), 1),
            "Clock Samples": len(self._samples),
        }

    def _sample(self) -> None:
        import pynvml

        try:
            self._properties = {
                "Compute Clock Rate": pynvml.nvmlDeviceGetMaxClockInfo(self._handle, pynvml.NVML_CLOCK_SM) / 1e3,
                "Memory Clock Rate": pynvml.nvmlDeviceGetMaxClockInfo(self._handle, pynvml.NVML_CLOCK_MEM) / 1e3,
                "Memory Bus Width": float(pynvml.nvmlDeviceGetMemoryBusWidth(self._handle)),
                "Driver": pynvml.nvmlSystemGetDriverVersion(),
            }
            while True:
                self._samples.append(_read_sensors(pynvml, self._handle))
                if self._stop.wait(_SECONDS_BETWEEN):
                    return
        except pynvml.NVMLError:
            return  # some GPUs and virtual machines report less: what was read before stays


def _library() -> Any | None:
    """`pynvml`, initialized; None without the package or a driver."""
    try:
        import pynvml
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None
    return pynvml


def _device_handles(pynvml: Any) -> list[Any]:
    return [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]


def _device_handle(uuid: str | None) -> Any | None:
    pynvml = _library() if uuid is not None else None
    if pynvml is None:
        return None
    try:
        return pynvml.nvmlDeviceGetHandleByUUID(uuid)
    except pynvml.NVMLError:
        return None


def _read_sensors(pynvml: Any, handle: Any) -> tuple[int, int, int, int, float]:
    return (
        pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_SM),
        pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_MEM),
        pynvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle),
        pynvml.nvmlDeviceGetTemperature(handle, pynvml.NVML_TEMPERATURE_GPU),
        pynvml.nvmlDeviceGetPowerUsage(handle) / 1e3,
    )
