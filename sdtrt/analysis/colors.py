"""One color per kind of layer and per number format, the same in every plot, and some for what is neither."""

from sdtrt.plan.layers import base_type

# Okabe and Ito's set, with a brown and a gray: apart from each other (CIELAB distance 16 or more) also for protanopia,
# deuteranopia and tritanopia, and visible on white and on black.
KIND_COLORS: dict[str, str] = {
    "conv": "#0072b2",
    "gemm": "#e69f00",
    "attention": "#009e73",
    "norm": "#cc79a7",
    "pointwise": "#56b4e9",
    "reformat": "#d55e00",
    "copy": "#f0e442",
    "shape": "#8b4a2b",
    "other": "#5f656d",
}
# From the same set. Wide floats are warm, since they are what one looks for in a half-precision engine.
PRECISION_COLORS: dict[str, str] = {
    "float64": "#8b4a2b",
    "float32": "#d55e00",
    "float16": "#0072b2",
    "bfloat16": "#009e73",
    "float8": "#56b4e9",
    "float4": "#b9dcf2",
    "int8": "#cc79a7",
    "int4": "#e7bfd4",
    "int32": "#e69f00",
    "int64": "#f0e442",
    "bool": "#a9b0b8",
    "unknown": "#5f656d",
}
NEUTRAL = "#48515e"
# Readable on both page colors, for lines and bars that have no meaning of their own.
LINE = "#8390a2"
# Stages of an image, in their order.
STAGE_COLORS = ("#009e73", "#0072b2", "#cc79a7", "#e69f00", "#56b4e9", "#8b4a2b")
WEIGHTS, ACTIVATIONS, LOST = "#0072b2", "#e69f00", "#d55e00"


def precision_color(name: str) -> str:
    """Color of a type; the variants of a type share one, and what is not listed is gray."""
    plain = name[1:] if name.startswith("uint") else base_type(name)
    return PRECISION_COLORS.get(plain, PRECISION_COLORS["unknown"])
