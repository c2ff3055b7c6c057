"""What the ONNX parser takes: facts of onnx-tensorrt's docs/operators.md and of NVIDIA's change logs.

Sources: operators.md of 10.15 ("opset 9 to opset 24", the table of operators and types) and of 10.0 ("opset 9 to opset
20"); docs/Changelog.md up to 10.6 (ONNX 1.17: opset 22); the ONNX Opset Guide of 11.x ("9 and above", "Maximum opset
25"); TensorRT's CHANGELOG for what came later: Attention in 10.14, RMSNormalization, RotaryEmbedding and TensorScatter
in 10.15, Swish in 11.0. GroupNormalization of opset 21 is imported since 10.9. Only operators that a Stable Diffusion
graph may hold are listed; one that is not here counts as refused.
"""

from __future__ import annotations

# TensorRT release: the highest opset that its parser documents. 10.12 is between 10.6 and 10.15.
MAX_OPSET = {(10, 0): 20, (10, 6): 22, (10, 15): 24, (11, 0): 25}
MIN_OPSET = 9

FLOATS = ("FLOAT", "HALF", "BF16")
NUMBERS = (*FLOATS, "INT32", "INT64")
ANY = (*NUMBERS, "BOOL")
QUANTIZED = ("INT8", "FP8", "INT4", "FP4")

OPERATORS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(
        (
            *("AveragePool", "BatchNormalization", "Ceil", "Celu", "Clip", "Conv", "ConvTranspose", "Cos", "CumSum"),
            *("Dropout", "Einsum", "Elu", "Erf", "Exp", "Floor", "Gemm", "GlobalAveragePool", "GlobalMaxPool"),
            *("GroupNormalization", "HardSigmoid", "HardSwish", "InstanceNormalization", "IsInf", "LayerNormalization"),
            *("LeakyRelu", "Log", "LogSoftmax", "MatMul", "MaxPool", "QuantizeLinear", "Reciprocal", "Resize"),
            *("RMSNormalization", "RotaryEmbedding", "Round", "Selu", "Sigmoid", "Sin", "Softmax", "Softplus"),
            *("Sqrt", "Swish", "Tanh", "Upsample"),
        ),
        FLOATS,
    ),
    **dict.fromkeys(
        (
            *("Abs", "Add", "ArgMax", "ArgMin", "DepthToSpace", "Div", "Equal", "Greater", "GreaterOrEqual", "IsNaN"),
            *("Less", "LessOrEqual", "Max", "Mean", "Min", "Mod", "Mul", "Neg", "Pad", "Pow", "Range", "ReduceMax"),
            *("ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum", "ReduceSumSquare", "Relu", "ScatterElements"),
            *("ScatterND", "Sign", "SpaceToDepth", "Sub", "Sum", "TopK"),
        ),
        NUMBERS,
    ),
    **dict.fromkeys(
        (
            *("Concat", "Expand", "EyeLike", "Flatten", "Gather", "GatherElements", "GatherND", "Identity", "OneHot"),
            *("Reshape", "Shape", "Size", "Slice", "Split", "Squeeze", "Tile", "Transpose", "Trilu", "Unsqueeze"),
            *("Where",),
        ),
        ANY,
    ),
    **dict.fromkeys(("And", "Not", "Or", "Xor"), ("BOOL",)),
    **dict.fromkeys(("Cast", "CastLike"), (*ANY, "UINT8")),
    **dict.fromkeys(("Constant", "ConstantOfShape"), (*ANY, "FP8", "FP4", "INT4")),
    "Attention": (*FLOATS, "INT8", "FP8"),
    "DequantizeLinear": QUANTIZED,
    "Gelu": (*FLOATS, "INT8", "INT32", "INT64"),
}
SINCE = {
    "Attention": (10, 14),
    "RMSNormalization": (10, 15),
    "RotaryEmbedding": (10, 15),
    "Swish": (11, 0),
}


def max_opset(release: tuple[int, int]) -> int:
    """The highest opset that the parser of `release` documents."""
    return max(opset for since, opset in MAX_OPSET.items() if since <= release)


def refusal(op: str, types: set[str | None], release: tuple[int, int]) -> str | None:
    """Why the parser of `release` refuses an operator with inputs of these types; None when it takes it.

    Indices and shapes are INT64 inputs of operators on other types, so a node passes when its first input's type does.
    """
    if op not in OPERATORS or SINCE.get(op, (0, 0)) > release:
        return f"No importer registered for op: {op}"
    strange = {t for t in types if t is not None} - set(OPERATORS[op])
    return f"{op} does not take {', '.join(sorted(strange))}" if strange else None
