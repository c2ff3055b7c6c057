"""Which layers FP8 may round, as far as a layer itself says; whether it pays at a size is decided in its build."""

from __future__ import annotations

from typing import Any

# Rows of the tensors that the memory engine copies are multiples of 16 bytes; fewer channels than this fill no tile.
LEAST_CHANNELS = 64


def suits(layer: Any, convolutions: bool) -> bool:
    """Whether this is a layer of the kinds and widths that `fp8` and, with `convolutions`, `fp8_conv` take."""
    from torch import nn

    columns, inner = layer.weight.shape[:2]
    if columns % 16 or inner % 16:
        return False
    if isinstance(layer, nn.Linear):
        return True
    how = (layer.kernel_size, layer.stride, layer.padding, layer.dilation, layer.groups)
    plain = how == ((3, 3), (1, 1), (1, 1), (1, 1), 1)
    return convolutions and plain and min(columns, inner) >= LEAST_CHANNELS
