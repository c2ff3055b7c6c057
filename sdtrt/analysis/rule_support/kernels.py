"""What the name of a GPU kernel says about the units it computes on.

TensorRT, cuDNN, cuBLAS and CUTLASS write the matrix instruction into the name: `tensor16x8x16`, `hmma`, `s16816gemm`.
The family name xmma says nothing: `sm80_xmma_..._ffma_...` is plain arithmetic. A name without any word is not known.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from sdtrt.analysis.rule_support.view import Part, View
from sdtrt.plan.layers import base_type

# Plain multiply-adds, products with a vector, and kernels for GPUs that had no tensor cores (Maxwell, Pascal).
_PLAIN = re.compile(
    r"ffma|dfma|simt|gemv|(?<![a-z])[sdh]gemm|scudnn|icudnn_int8x4|fp32_icudnn|maxwell_|pascal_|(?<![a-z0-9])sm[56]\d_"
)
# The instruction's shape or name; warp groups, cuBLAS's nvjet, TF32 and FP8 exist on tensor cores only, and fused
# attention is written for them.
_TENSOR = re.compile(
    r"tensor\d+x\d+x\d+|tensorop|(?<![a-z])(?:[bdhiqsuw]|wg|[hiq]?g|utc[a-z]{0,2})?mma(?![a-z])|gmmastage|warpgroupsize"
    r"|nvjet|tf32|e4m3|e5m2|(?<![a-z])f?mha(?![a-z])|flash"
    r"|(?<![a-z0-9])[a-z]?(?:884|1688|8816|8832|16816|16832|16864|161616)(?!\d)"
)


def uses_tensor_cores(kernel: str | None) -> bool | None:
    """Whether a kernel of this name runs on tensor cores; None when the name does not say."""
    name = (kernel or "").lower()
    return False if _PLAIN.search(name) else True if _TENSOR.search(name) else None


def is_fused_attention(kernel: str | None) -> bool:
    """Whether a kernel of this name is a whole attention."""
    return bool(re.search(r"(?<![a-z])f?mha(?![a-z])|flash|fused_attention", (kernel or "").lower()))


def without_tensor_cores(view: View, wanted: Callable[[Part], bool]) -> Iterator[Part]:
    """Products on plain arithmetic that the device's tensor cores would speed up.

    Left out: types that the device has no such units for, depthwise convolutions, what memory limits even on plain
    arithmetic, and float32 in a half-precision engine, which `fp32_islands` reports.
    """
    for part in view.parts:
        if not wanted(part) or not part.runs or uses_tensor_cores(part.layer.kernel) is not False:
            continue
        if _has_units(view, part.layer.precision) and not _is_depthwise(part) and not _waits_for_memory(view, part):
            yield part


def _has_units(view: View, precision: str | None) -> bool:
    if precision in (None, "float32"):
        return bool(view.peaks and view.peaks.matrix_tflops.get("float32")) and not view.is_half
    return view.peaks is None or base_type(precision) in view.peaks.matrix_tflops


def _is_depthwise(part: Part) -> bool:
    groups = part.layer.attributes.get("Groups", 1)
    return "depthwise" in part.layer.op.lower() or (isinstance(groups, int) and groups > 1)


def _waits_for_memory(view: View, part: Part) -> bool:
    limits, layer = view.peaks, part.layer
    if limits is None or not limits.vector_tflops or not limits.gb_per_s:
        return False
    if layer.flops is None or layer.bytes_moved is None:
        return False
    return layer.flops / limits.vector_tflops / 1e9 <= layer.bytes_moved / limits.gb_per_s / 1e6
