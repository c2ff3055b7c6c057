"""What this machine can do at best, measured: the peaks of a report's roofline.

A product of large random square matrices and a copy of a large array, medians of repeated runs. On a CPU the same units
do products and plain arithmetic; on a GPU the plain rate is cores x clock x 2, which no library call reaches.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

from sdtrt.analysis.device_peaks import GPU_LAUNCH_US, DevicePeaks
from sdtrt.system import env

# Side of the matrices and bytes of the copy: well beyond the caches, and a second or two in all.
CPU_SIDE, CPU_BYTES = 1024, 1 << 28
GPU_SIDE, GPU_BYTES = 8192, 1 << 30
RUNS = 9
# float32 units in a multiprocessor of every GPU since Ampere's consumer parts and Hopper; each does two operations.
FP32_UNITS = 128


def measure_peaks(device: str | None = None) -> DevicePeaks:
    """Measure `device` ("cpu" or "cuda"), by default the GPU where torch sees one."""
    import torch

    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    gpu = device.startswith("cuda")
    side, nbytes = (GPU_SIDE, GPU_BYTES) if gpu else (CPU_SIDE, CPU_BYTES)
    dtypes: tuple[str, ...] = ("float32", "float16", "bfloat16") if gpu else ("float32",)
    if gpu and torch.cuda.get_device_capability(device) >= env.LEAST_SM_FP8:
        dtypes += ("float8",)
    products = {name: _product_tflops(name, side, device) for name in dtypes}
    name = torch.cuda.get_device_name(device) if gpu else env.cpu_name()
    return DevicePeaks(
        device=name,
        source=f"measured with torch {torch.__version__}: products of {side}x{side}, a copy of {nbytes >> 20} MiB",
        matrix_tflops=products,
        vector_tflops=_plain_tflops(device) if gpu else products["float32"],
        gb_per_s=_copy_gb_per_s(nbytes, device),
        launch_us=GPU_LAUNCH_US if gpu else None,
    )


def _product_tflops(dtype: str, side: int, device: str) -> float:
    import torch

    narrow = dtype == "float8"
    kind = torch.float8_e4m3fn if narrow else getattr(torch, dtype)
    a, b = (torch.randn(side, side, device=device).to(kind) for _ in range(2))
    one = torch.ones((), device=device)

    def multiply() -> object:
        return torch._scaled_mm(a, b.t(), one, one, None, None, torch.float16, True) if narrow else a @ b

    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = True  # as TensorRT and most users run float32
    try:
        return 2 * side**3 / _seconds(multiply, device) / 1e12
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


def _copy_gb_per_s(nbytes: int, device: str) -> float:
    import torch

    source = torch.ones(nbytes, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * nbytes / _seconds(lambda: target.copy_(source), device) / 1e9


def _plain_tflops(device: str) -> float | None:
    import torch

    facts = torch.cuda.get_device_properties(device)
    clock_khz = getattr(facts, "clock_rate", None)
    return None if not clock_khz else facts.multi_processor_count * FP32_UNITS * 2 * clock_khz * 1e3 / 1e12


def _seconds(call: Callable[[], object], device: str) -> float:
    import torch

    def once() -> float:
        if device == "cpu":
            started = time.perf_counter()
            call()
            return time.perf_counter() - started
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        call()
        end.record()
        end.synchronize()
        return float(start.elapsed_time(end)) / 1e3

    once()
    once()
    return median(once() for _ in range(RUNS))
