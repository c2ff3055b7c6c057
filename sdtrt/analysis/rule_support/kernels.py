"""What the name of a GPU kernel says about the units it computes on.

TensorRT, cuDNN, cuBLAS and CUTLASS write the matrix instruction into the name: `tensor16x8x16`, `hmma`, `s16816gemm`.
The family name xmma says nothing: `sm80_xmma_..._ffma_...` is plain arithmetic. A name without any word is not known.
"""

import re

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
