"""Which layers FP8 may quantize by their kind and widths; a build also decides by their sizes."""

from typing import Any

# Rows of the tensors that TMA copies are multiples of 16 bytes; fewer channels than this fill no tile.
LEAST_CHANNELS = 64


def suits(layer: Any, convolutions: bool) -> bool:
    """Whether this is a layer of the kinds and widths that `fp8` and, with `convolutions`, `fp8_conv` take."""
    from torch import nn

    columns, inner = layer.weight.shape[:2]
    if columns % 16 or inner % 16:
        return False
    if isinstance(layer, nn.Linear):
        return True
    geometry = (layer.kernel_size, layer.stride, layer.padding, layer.dilation, layer.groups)
    plain = geometry == ((3, 3), (1, 1), (1, 1), (1, 1), 1)
    return convolutions and plain and min(columns, inner) >= LEAST_CHANNELS
