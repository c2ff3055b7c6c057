"""Clocks while an engine is timed, from NVML: a time says little when the GPU was hot or held back."""

from __future__ import annotations

import threading
from statistics import median
from typing import Any

from sdtrt.system import env

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


class Clocks:
    """Samples clocks, temperature, power and throttle reasons of one GPU while the `with` block runs."""

    def __init__(self, uuid: str | None) -> None:
        self._samples: list[tuple[int, int, int, int, float]] = []
        self._fixed: dict[str, Any] = {}
        self._stop = threading.Event()
        self._handle = _handle(uuid)
        self._thread = threading.Thread(target=self._work, daemon=True)

    def __enter__(self) -> Clocks:
        if self._handle is not None:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self._handle is not None:
            self._thread.join()

    def facts(self) -> dict[str, Any]:
        """Device facts under trtexec's names, and least, median and largest clocks; empty without NVML."""
        if not self._samples:
            return dict(self._fixed)
        sm, memory, reasons, celsius, watts = zip(*self._samples, strict=True)
        names = [text for bit, text in REASONS.items() if any(r & bit for r in reasons) and text != "idle"]
        return {
            **self._fixed,
            "SM Clock During Runs (MHz)": [min(sm), median(sm), max(sm)],
            "Memory Clock During Runs (MHz)": [min(memory), median(memory), max(memory)],
            "Throttle Reasons": names,
            "Temperature (C)": max(celsius),
            "Power (W)": round(max(watts), 1),
            "Clock Samples": len(self._samples),
        }

    def _work(self) -> None:
        import pynvml as nvml

        try:
            self._fixed = _fixed(self._handle)
            while True:
                self._samples.append(_sample(self._handle))
                if self._stop.wait(_SECONDS_BETWEEN):
                    return
        except nvml.NVMLError:
            return  # some GPUs and virtual machines tell less: what was read stands


def _handle(uuid: str | None) -> Any | None:
    if uuid is None or not env.importable("pynvml"):
        return None
    import pynvml as nvml

    try:
        nvml.nvmlInit()
        return nvml.nvmlDeviceGetHandleByUUID(uuid)
    except nvml.NVMLError:
        return None


def _fixed(handle: Any) -> dict[str, Any]:
    import pynvml as nvml

    return {
        "Compute Clock Rate": nvml.nvmlDeviceGetMaxClockInfo(handle, nvml.NVML_CLOCK_SM) / 1e3,
        "Memory Clock Rate": nvml.nvmlDeviceGetMaxClockInfo(handle, nvml.NVML_CLOCK_MEM) / 1e3,
        "Memory Bus Width": float(nvml.nvmlDeviceGetMemoryBusWidth(handle)),
        "Driver": nvml.nvmlSystemGetDriverVersion(),
    }


def _sample(handle: Any) -> tuple[int, int, int, int, float]:
    import pynvml as nvml

    return (
        nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_SM),
        nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_MEM),
        nvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle),
        nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU),
        nvml.nvmlDeviceGetPowerUsage(handle) / 1e3,
    )
