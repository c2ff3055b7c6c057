"""measure_peaks(): peak rates of this machine, for the roofline of a report.

The medians of repeated matmuls of large random square matrices and of repeated copies of a large array. On a CPU the
same units compute matmuls and element-wise operations; on a GPU the element-wise rate is cores x clock x 2, which no
library call reaches.
"""

import time
from collections.abc import Callable
from statistics import median

import torch

from sdtrt.analysis.device_peaks import GPU_LAUNCH_US, DevicePeaks
from sdtrt.system import env

# Side of the matrices and bytes of the copy: much larger than the caches, and a second or two of work in total.
CPU_SIDE, CPU_BYTES = 1024, 1 << 28
GPU_SIDE, GPU_BYTES = 8192, 1 << 30
RUNS = 9
# float32 units per multiprocessor of consumer GPUs since Ampere, and of Hopper; an FMA counts as two operations.
FP32_UNITS = 128


def measure_peaks(device: str | None = None) -> DevicePeaks:
    """Measure `device` ("cpu" or "cuda"), by default the GPU where torch sees one."""
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    gpu = device.startswith("cuda")
    side, nbytes = (GPU_SIDE, GPU_BYTES) if gpu else (CPU_SIDE, CPU_BYTES)
    dtypes: tuple[str, ...] = ("float32", "float16", "bfloat16") if gpu else ("float32",)
    if gpu and torch.cuda.get_device_capability(device) >= env.LEAST_SM_FP8:
        dtypes += ("float8",)
    matmul_tflops = {name: _matmul_tflops(name, side, device) for name in dtypes}
    return DevicePeaks(
        device=torch.cuda.get_device_name(device) if gpu else env.cpu_name(),
        source=f"measured with torch {torch.__version__}: matmuls of {side}x{side}, a copy of {nbytes >> 20} MiB",
        matrix_tflops=matmul_tflops,
        vector_tflops=_elementwise_tflops(device) if gpu else matmul_tflops["float32"],
        gb_per_s=_copy_gb_per_s(nbytes, device),
        launch_us=GPU_LAUNCH_US if gpu else None,
    )


def _matmul_tflops(dtype: str, side: int, device: str) -> float:
    fp8 = dtype == "float8"
    torch_dtype = torch.float8_e4m3fn if fp8 else getattr(torch, dtype)
    a, b = (torch.randn(side, side, device=device).to(torch_dtype) for _ in range(2))
    scale = torch.ones((), device=device)

    def multiply() -> object:
        return torch._scaled_mm(a, b.t(), scale, scale, None, None, torch.float16, True) if fp8 else a @ b

    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = True  # as TensorRT does by default
    try:
        return 2 * side**3 / _median_s(multiply, device) / 1e12
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


def _copy_gb_per_s(nbytes: int, device: str) -> float:
    source = torch.ones(nbytes, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * nbytes / _median_s(lambda: target.copy_(source), device) / 1e9


def _elementwise_tflops(device: str) -> float | None:
    properties = torch.cuda.get_device_properties(device)
    clock_khz = getattr(properties, "clock_rate", None)
    return None if not clock_khz else properties.multi_processor_count * FP32_UNITS * 2 * clock_khz * 1e3 / 1e12


def _median_s(call: Callable[[], object], device: str) -> float:
    """Median seconds, on a GPU between events: `torch.utils.benchmark` times on the host, launch included."""

    def run_s() -> float:
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

    run_s()
    run_s()
    return median(run_s() for _ in range(RUNS))
