"""Colors of layer types and precisions. A key that is not listed is gray, as in TREx."""

from collections import defaultdict

__all__ = ["default_pallete", "layer_colormap", "precision_colormap"]

UNKNOWN_KEY_COLOR = "gray"
GRID_COLOR = "rgba(128, 128, 128, 0.25)"
EDGE_COLOR = "white"
CLEAR = "rgba(0,0,0,0)"

# Thirteen colors for categories without a color of their own; the last one is for all that are left.
default_pallete = [
    "#4c78a8",
    "#f58518",
    "#54a24b",
    "#e45756",
    "#b279a2",
    "#72b7b2",
    "#eeca3b",
    "#9d755d",
    "#ff9da6",
    "#3f51b5",
    "#00838f",
    "#8d6e63",
    UNKNOWN_KEY_COLOR,
]

precision_colormap = defaultdict(
    lambda: UNKNOWN_KEY_COLOR,
    FP32="#d62728",
    FP16="#ff9f1c",
    BF16="#f2c14e",
    FP8="#17a2d8",
    FP4="#5c6bc0",
    INT8="#6aa84f",
    INT4="#2e7d32",
    INT32="#c8c8c8",
    INT64="#a5a5a5",
    Bool="#8f8f8f",
    FP64="#8b0000",
)

layer_colormap = defaultdict(
    lambda: UNKNOWN_KEY_COLOR,
    Convolution="#4682b4",
    ConvActPool="#6495ed",
    Deconvolution="#7b68ee",
    MatrixMultiply="#1565c0",
    gemm="#1565c0",
    Attention="#c2185b",
    mha="#c2185b",
    Normalization="#00897b",
    SoftMax="#da70d6",
    PointWise="#9acd32",
    ElementWise="#9acd32",
    Reduce="#90ee90",
    Scale="#8fbc8b",
    Quantize="#6b8e23",
    Pooling="#3cb371",
    Reformat="#26c6da",
    Shuffle="#bc8f8f",
    Slice="#ffa500",
    Split="#ffcc80",
    Concat="#e9967a",
    Gather="#a1887f",
    Resize="#d2b48c",
    Myelin="#b39c4d",
    kgen="#b39c4d",
    PluginV2="#c71585",
    NonZero="#98fb98",
    TrainStation="#ffa07a",
)
