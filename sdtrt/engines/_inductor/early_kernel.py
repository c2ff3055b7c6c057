"""How a kernel waits for the one in front itself, so that it can be launched before that has ended (`_cuda_early`).

Where nothing was launched early both instructions do nothing. Hopper is the first to have them.
"""

# mypy: ignore-errors
# ruff: noqa: N803, ANN202

from __future__ import annotations

import triton
import triton.language as tl

# The kernels that wait, by the names that the device knows them by.
KERNELS = frozenset(
    {
        "_add_parts", "_apply", "_conv3x3", "_conv3x3_parts", "_factors", "_gated", "_group", "_layer_norm",
        "_short_attention", "_sums", "_upsample",
    }
)  # fmt: skip


@triton.jit
def ready(EARLY: tl.constexpr):
    """0, as soon as all that the kernel in front writes can be read; the kernel behind may get ready from now on.

    To be added to what addresses are made of: it is this sum that keeps reads and writes behind the wait. What is read
    without it (weights, scales, factors) is written by no kernel of a graph. An assembly with side effects would keep
    all behind by itself, but then Inductor takes every argument for one that is written.
    """
    if EARLY:
        return tl.inline_asm_elementwise(
            "griddepcontrol.launch_dependents; griddepcontrol.wait; mov.b32 $0, 0;", "=r", [], dtype=tl.int32,
            is_pure=True, pack=1,
        )  # fmt: skip
    return 0
