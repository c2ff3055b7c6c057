"""Speed of single kernels at the shapes of SD and SDXL: the basis of the Inductor backend's choices.

    python benchmarks/h200_kernels.py [--out FILE]

Matmuls in fp16 and in FP8, with one scale and with scales per row and channel; GEGLU by sdtrt's kernel ("ours"), and
as a matmul and a pointwise kernel; 3x3 convolutions by ours in FP8 and cuDNN in fp16; attention by flash, cuDNN,
the memory-efficient kernel and ours (in FP8, and cross-attention), and of one wide head by matmuls; GroupNorm with
SiLU, LayerNorm of a sum and upsampling by ours and by Inductor, with the time of the necessary memory traffic.

Microseconds, medians of five replays of twenty calls in one CUDA graph: inputs may still be in the cache.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
import triton
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from sdtrt.engines.backends.inductor.kernels.conv import conv3x3
from sdtrt.engines.backends.inductor.kernels.cross_attention import MOST_KEYS, short_attention
from sdtrt.engines.backends.inductor.kernels.geglu import gated
from sdtrt.engines.backends.inductor.kernels.group_norm import group_norm
from sdtrt.engines.backends.inductor.kernels.layer_norm import layer_norm
from sdtrt.engines.backends.inductor.kernels.self_attention import self_attention
from sdtrt.engines.backends.inductor.kernels.upsample import upsample
from sdtrt.engines.backends.inductor.passes.fp8 import FEW_ROWS

RESULTS = Path(__file__).parent / "results"
CALLS, REPLAYS = 20, 5
# (times the rows of the 1280-channel level, (inner, columns)) of a transformer block's layers.
LAYERS = [(1, (1280, 3840)), (1, (1280, 1280)), (1, (1280, 10240)), (1, (5120, 1280))]
LAYERS += [(4, (640, 1920)), (4, (640, 640)), (4, (640, 5120)), (4, (2560, 640))]
# (rows, heads, queries, keys), heads of 64.
ATTENTIONS = [(2, 20, 1024, 1024), (2, 10, 4096, 4096), (16, 20, 1024, 1024), (16, 10, 4096, 4096)]
ATTENTIONS += [(2, 20, 1024, 77), (2, 10, 4096, 77), (16, 20, 1024, 77), (16, 10, 4096, 77)]
ATTENTIONS += [(2, 5, 4096, 4096), (2, 10, 1024, 1024), (2, 20, 256, 256), (16, 5, 4096, 4096), (16, 20, 256, 256)]
KERNELS = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
}
# (rows, channels in, channels out, side) and (rows, inner, columns of a half)
CONVOLUTIONS = [(r, *c) for r in (2, 16) for c in ((320, 320, 128), (960, 320, 128), (640, 640, 64), (1920, 640, 64))]
CONVOLUTIONS += [(r, *c) for r in (2, 16) for c in ((1280, 1280, 32), (2560, 1280, 32), (320, 320, 64), (640, 640, 32))]
CONVOLUTIONS += [(r, *c) for r in (2, 16) for c in ((1280, 1280, 16), (2560, 1280, 16), (1280, 1280, 8))]
GATES = [(2048, 1280, 5120), (8192, 640, 2560), (16384, 1280, 5120), (65536, 640, 2560), (8192, 320, 1280)]
SUMS = [(2048, 1280), (8192, 640), (16384, 1280), (65536, 640), (8192, 320)]
NORMS = [(2, 320, 128), (2, 640, 64), (2, 1280, 32), (2, 960, 128), (16, 320, 128), (16, 1280, 32), (1, 128, 1024)]
NORMS += [(2, 640, 32), (2, 1280, 16), (2, 1280, 8), (16, 1280, 16)]
UPSAMPLED = [(2, 1280, 32), (2, 640, 64), (16, 1280, 32), (16, 640, 64)]
VAE_ATTENTIONS = [(4096, 512), (16384, 512)]


def main() -> None:
    """Measure all kernels, print and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=RESULTS / "h200_kernels.json")
    args = parser.parse_args()
    triton.set_allocator(lambda size, align, stream: torch.empty(size, dtype=torch.int8, device="cuda"))
    results: dict[str, Any] = {"gpu": torch.cuda.get_device_name(), "torch": torch.__version__}
    for rows in (2048, 16384):
        for times, (inner, columns) in LAYERS:
            show(results, f"{rows * times}x{inner}x{columns}", matmuls(rows * times, inner, columns))
    for shape in ATTENTIONS:
        for layout in ("fused", "plain")[shape[2] != shape[3] :]:
            show(results, f"attention {'x'.join(map(str, shape))} {layout}", attention(*shape, layout == "fused"))
    for kind, measure, sizes in OTHER_KERNELS:
        for size in sizes:
            show(results, f"{kind} {'x'.join(map(str, size))}", measure(*size))
    args.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def show(results: dict[str, Any], name: str, row: dict[str, float | str]) -> None:
    """Print a row and add it to the results."""
    results[name] = row
    print(name, {k: round(v, 1) if isinstance(v, float) else v for k, v in row.items()}, flush=True)


def time_us(call: Callable[[], Any]) -> float | str:
    """Microseconds of one call, or the error where it does not run."""
    try:
        for _ in range(3):
            call()
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for _ in range(CALLS):
                call()
    except RuntimeError as exc:
        return str(exc).splitlines()[0][:80]
    times = []
    for _ in range(REPLAYS + 1):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        graph.replay()
        end.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(end) / CALLS * 1e3)
    return median(times[1:])


def matmuls(rows: int, inner: int, columns: int) -> dict[str, float | str]:
    """A linear layer in fp16, and in FP8 with scales per tensor and per channel."""
    x = torch.randn(rows, inner, device="cuda").half()
    weight = (torch.randn(columns, inner, device="cuda") * 0.02).half()
    bias = torch.randn(columns, device="cuda").half()
    x8, w8 = x.to(torch.float8_e4m3fn), (weight * 10).to(torch.float8_e4m3fn).t()
    one, tenth = torch.tensor(1.0, device="cuda"), torch.tensor(0.1, device="cuda")
    by_row, by_column = torch.ones(rows, 1, device="cuda"), torch.full((1, columns), 0.1, device="cuda")
    rest = (None, torch.float16, True)
    return {
        "fp16": time_us(lambda: functional.linear(x, weight, bias)),
        "fp8, one scale": time_us(lambda: torch._scaled_mm(x8, w8, one, tenth, None, *rest)),
        "fp8, one scale, bias": time_us(lambda: torch._scaled_mm(x8, w8, one, tenth, bias, *rest)),
        "fp8, by channel": time_us(lambda: torch._scaled_mm(x8, w8, by_row, by_column, None, *rest)),
        "fp8, by channel, bias": time_us(lambda: torch._scaled_mm(x8, w8, by_row, by_column, bias, *rest)),
    }


def attention(rows: int, heads: int, queries: int, keys: int, fused: bool) -> dict[str, float | str]:
    """One attention by each kernel."""
    width = heads * 64
    if fused:
        parts = list(torch.randn(rows, queries, 3 * width, device="cuda").half().split(width, -1))
    else:
        parts = [torch.randn(rows, n, width, device="cuda").half() for n in (queries, keys, keys)]
    q, k, v = (p.view(rows, -1, heads, 64).transpose(1, 2) for p in parts)
    row: dict[str, float | str] = {}
    for name, kernel in KERNELS.items():
        with sdpa_kernel(kernel):
            row[name] = time_us(lambda: functional.scaled_dot_product_attention(q, k, v))
    if queries == keys:
        row |= fp8_attention(rows, heads, queries)
    if keys <= MOST_KEYS:
        factor = torch.tensor(30.0, device="cuda")
        row["ours"] = time_us(lambda: short_attention(q, k, v, 0.125))
        row["ours, rounded"] = time_us(lambda: short_attention(q, k, v, 0.125, factor))
    return row


def fp8_attention(rows: int, heads: int, pixels: int) -> dict[str, float | str]:
    """Self-attention in FP8, and its qkv projection with fp16 outputs and as two matmuls with FP8 outputs."""
    width, count = heads * 64, rows * pixels
    x, both, last = random_fp8(count, width), random_fp8(2 * width, width), random_fp8(width, width)
    qk, vt = (random_fp8(count, 2 * width).float() * 2).to(both.dtype), random_fp8(width, count)
    small, factor = torch.tensor(0.01, device="cuda"), torch.tensor(30.0, device="cuda")
    by_row, by_column = torch.full((count, 1), 0.1, device="cuda"), torch.full((1, 3 * width), 0.1, device="cuda")
    scales = (small, small) if count <= FEW_ROWS else (by_row, by_column)
    whole, codes = torch.cat([both, last]), torch.tensor(0.4, device="cuda")

    def as_two() -> None:
        torch._scaled_mm(x, both.t(), small, small, None, None, both.dtype, True)
        torch._scaled_mm(last, x.t(), small, small, None, None, both.dtype, True)

    return {
        "ours, fp8": time_us(lambda: self_attention(qk, vt, codes, small, rows, heads, torch.float16, factor)),
        "product": time_us(lambda: torch._scaled_mm(x, whole.t(), *scales, None, None, torch.float16, True)),
        "products that write fp8": time_us(as_two),
    }


def random_fp8(*shape: int) -> Any:
    """Random FP8 values."""
    return torch.randn(*shape, device="cuda").to(torch.float8_e4m3fn)


def convolution(rows: int, channels: int, columns: int, side: int) -> dict[str, float | str]:
    """3x3 with bias, stride 1."""
    x = torch.randn(rows, channels, side, side, device="cuda").half().contiguous(memory_format=torch.channels_last)
    weight = torch.randn(columns, channels, 3, 3, device="cuda").half().contiguous(memory_format=torch.channels_last)
    bias, scales = torch.randn(columns, device="cuda").half(), torch.rand(columns, device="cuda") * 0.1
    bits = functional.pad(x.to(torch.float8_e4m3fn).view(torch.uint8), (0, 1, 0, 1))
    bits = bits.contiguous(memory_format=torch.channels_last)
    taps, one = random_fp8(columns, 9 * channels), torch.tensor(0.1, device="cuda")
    residual = (
        torch.randn(rows, columns, side, side, device="cuda").half().contiguous(memory_format=torch.channels_last)
    )
    with torch.backends.cudnn.flags(enabled=True, benchmark=True, allow_tf32=True):
        return {
            "ours, fp8": time_us(lambda: conv3x3(bits, taps, one, scales, bias, torch.float16)),
            "ours, fp8, and a sum": time_us(lambda: conv3x3(bits, taps, one, scales, bias, torch.float16, residual)),
            "cudnn, fp16": time_us(lambda: functional.conv2d(x, weight, bias, padding=1)),
            "gflop": 2 * rows * side**2 * columns * channels * 9 / 1e9,
        }


def geglu_layer(rows: int, inner: int, columns: int) -> dict[str, float | str]:
    """The GEGLU layer of a transformer block, up to the quantized input of the next matmul."""
    x, weight = random_fp8(rows, inner), random_fp8(2 * columns, inner)
    bias, scales = torch.randn(2 * columns, device="cuda").half(), torch.rand(2 * columns, device="cuda") * 0.1
    one, factor = torch.tensor(0.1, device="cuda"), torch.tensor(2.0, device="cuda")
    rest = (bias, None, torch.float16, True)
    product = torch._scaled_mm(x, weight.t(), one, one, *rest)

    def pointwise(product: Any) -> Any:
        value, half = product.chunk(2, -1)
        output = value.float() * functional.gelu(half.float(), approximate="tanh") * factor
        return output.clamp(-448, 448).to(torch.float8_e4m3fn)

    compiled = torch.compile(pointwise, dynamic=False)
    return {
        "ours": time_us(lambda: gated(x.view(torch.uint8), weight, one, scales, bias, factor)),
        "product": time_us(lambda: torch._scaled_mm(x, weight.t(), one, one, *rest)),
        "pointwise": time_us(lambda: compiled(product)),
    }


def group_norm_silu(images: int, channels: int, side: int) -> dict[str, float | str]:
    """GroupNorm with 32 groups and SiLU of a sum with the time embedding."""
    x = torch.randn(images, channels, side, side, device="cuda").half().contiguous(memory_format=torch.channels_last)
    weight, bias = (torch.randn(channels, device="cuda").half() for _ in range(2))
    add = torch.randn(images, channels, device="cuda").half()

    def plain(x: Any, add: Any) -> Any:
        return functional.silu(functional.group_norm(x + add[:, :, None, None], 32, weight, bias, 1e-5))

    compiled, factor = torch.compile(plain, dynamic=False), torch.tensor(8.0, device="cuda")
    return {
        "ours": time_us(lambda: group_norm(x, add, weight, bias, 32, 1e-5, True)),
        "ours, rounded": time_us(lambda: group_norm(x, add, weight, bias, 32, 1e-5, True, factor, True)),
        "inductor": time_us(lambda: compiled(x, add)),
        "bytes at 4.15 TB/s": 3 * x.nbytes / 4.15e12 * 1e6,
    }


def upsampled(images: int, channels: int, side: int) -> dict[str, float | str]:
    """Upsampling, quantization and padding for a convolution."""
    x = torch.randn(images, channels, side, side, device="cuda").half().contiguous(memory_format=torch.channels_last)
    factor = torch.tensor(8.0, device="cuda")

    def plain(x: Any) -> Any:
        output = functional.interpolate(x, scale_factor=2.0, mode="nearest").float() * factor
        return functional.pad(output.clamp(-448, 448).to(torch.float8_e4m3fn).view(torch.uint8), (0, 1, 0, 1))

    compiled = torch.compile(plain, dynamic=False)
    return {
        "ours": time_us(lambda: upsample(x, factor, True)),
        "inductor": time_us(lambda: compiled(x)),
        "bytes at 4.15 TB/s": 3 * x.nbytes / 4.15e12 * 1e6,
    }


def vae_attention(pixels: int, channels: int) -> dict[str, float | str]:
    """A VAE's attention: the SDPA kernel for a head of this width, and matmuls with a softmax between them."""
    q, k, v = (torch.randn(1, 1, pixels, channels, device="cuda").bfloat16() for _ in range(3))

    def matmuls(q: Any, k: Any, v: Any, scores_at_once: int) -> Any:
        parts = []
        for some in q[0].split(max(1, scores_at_once // pixels), 1):
            scores = torch.bmm(some, k[0].transpose(1, 2), out_dtype=torch.float32) * channels**-0.5
            parts.append(torch.bmm(scores.softmax(-1).bfloat16(), v[0]))
        return torch.cat(parts, 1)

    compiled = torch.compile(matmuls, dynamic=False)
    sizes = [2**power for power in (23, 24, 25, 26)]
    return {
        **{f"products of 2^{n.bit_length() - 1} scores": time_us(partial(compiled, q, k, v, n)) for n in sizes},
        "efficient": time_us(lambda: functional.scaled_dot_product_attention(q, k, v)),
        "gflop": 4 * pixels**2 * channels / 1e9,
    }


def residual_layer_norm(rows: int, size: int) -> dict[str, float | str]:
    """LayerNorm of a layer's output plus its residual, and quantization."""
    x, residual = (torch.randn(rows, size, device="cuda").half() for _ in range(2))
    weight, bias = (torch.randn(size, device="cuda").half() for _ in range(2))
    factor = torch.tensor(8.0, device="cuda")

    def plain(x: Any, residual: Any) -> Any:
        total = x + residual
        output = functional.layer_norm(total, (size,), weight, bias) * factor
        return total, output.clamp(-448, 448).to(torch.float8_e4m3fn)

    compiled = torch.compile(plain, dynamic=False)
    return {
        "ours": time_us(lambda: layer_norm(x, None, residual, weight, bias, 1e-5, factor)),
        "inductor": time_us(lambda: compiled(x, residual)),
        "bytes at 4.15 TB/s": 7 * x.numel() / 4.15e12 * 1e6,
    }


OTHER_KERNELS: list[tuple[str, Callable[..., dict[str, float | str]], list[tuple[int, ...]]]] = [
    ("conv3x3", convolution, CONVOLUTIONS),
    ("gated", geglu_layer, GATES),
    ("group norm", group_norm_silu, NORMS),
    ("layer norm", residual_layer_norm, SUMS),
    ("upsample", upsampled, UPSAMPLED),
    ("wide attention", vae_attention, VAE_ATTENTIONS),
]

if __name__ == "__main__":
    main()
