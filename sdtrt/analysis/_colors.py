"""One colour per kind of layer, the same in every plot, and one for what is not a kind."""

from __future__ import annotations

# Okabe and Ito's set, with a brown and a grey: apart from each other (CIELAB distance 16 or more) also for protanopia,
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
NEUTRAL = "#48515e"
