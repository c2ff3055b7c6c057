"""A layer as TREx presents it, and the folding of NoOp layers."""

from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from math import nan
from statistics import fmean, median
from typing import Any

from sdtrt.analysis.trex.activations import UNKNOWN, Activation, bytes_of, raw_tensor
from sdtrt.plan import layers
from sdtrt.plan.layers import DTYPE_BITS
from sdtrt.readers.formats.tensorrt.tensors import dtype_of

__all__ = ["Layer", "fold_no_ops"]

# TREx's names for layers that other versions and backends call otherwise.
_TYPES = {
    **dict.fromkeys(("Conv", "FusedConv", "NhwcFusedConv", "correlation"), "Convolution"),
    "ConvTranspose": "Deconvolution",
    **dict.fromkeys(("MatMul", "FusedMatMul", "Gemm", "FusedGemm"), "MatrixMultiply"),
    **dict.fromkeys(("Attention", "MultiHeadAttention"), "Attention"),
    **dict.fromkeys(("LayerNormalization", "GroupNormalization", "InstanceNormalization"), "Normalization"),
    **dict.fromkeys(("SkipLayerNormalization", "RMSNormalization", "GroupNorm", "SkipGroupNorm"), "Normalization"),
    "Softmax": "SoftMax",
    **dict.fromkeys(("Add", "Sub", "Mul", "Div", "Pow", "Sqrt", "Cos", "Sin", "Sigmoid", "Tanh"), "ElementWise"),
    **dict.fromkeys(("Relu", "Gelu", "QuickGelu", "BiasGelu", "FastGelu", "Erf", "Swish"), "ElementWise"),
    **dict.fromkeys(("Reshape", "Transpose", "Unsqueeze", "Squeeze", "Flatten"), "Shuffle"),
    **dict.fromkeys(("Cast", "ReorderInput", "ReorderOutput"), "Reformat"),
    **dict.fromkeys(("MaxPool", "AveragePool", "GlobalAveragePool", "maxpool"), "Pooling"),
    **dict.fromkeys(("Upsample", "Resize"), "Resize"),
}
# Keys of the raw layer that hold weights; a layer of these kinds without any has none.
_WEIGHTS = ("Weights", "ConvWeights")
_WEIGHTLESS = frozenset(
    {"Reformat", "NoOp", "Pooling", "Shuffle", "Slice", "SoftMax", "Resize", "PointWise", "PointWiseV2"}
)
_NOT_IN_TOOLTIP = frozenset({"Inputs", "Outputs", "ParameterType"})


class Layer:
    """One layer: its raw record, its activations and the sizes that TREx derives from them."""

    def __init__(self, layer: layers.Layer, name: str) -> None:
        raw: dict[str, Any] = {"Name": name, "LayerType": layer.op, **layer.attributes}
        if layer.kernel is not None:
            raw.setdefault("TacticName", layer.kernel)
        if layer.stream is not None:
            raw.setdefault("StreamId", layer.stream)
        raw["Name"] = name
        raw["Inputs"] = [raw_tensor(tensor) for tensor in layer.inputs]
        raw["Outputs"] = [raw_tensor(tensor) for tensor in layer.outputs]
        self.raw_dict = raw
        self.source = layer
        self.name = name
        self.subtype: str = raw["LayerType"]
        self.type = _type_of(raw)
        self.metadata: str | None = raw.get("Metadata")
        self.inputs = [Activation(tensor) for tensor in raw["Inputs"]]
        self.outputs = [Activation(tensor) for tensor in raw["Outputs"]]
        self.precision = self.inputs[0].precision if self.inputs else UNKNOWN
        self.output_precision = self.outputs[0].precision if self.outputs else UNKNOWN
        self.inputs_size_bytes = bytes_of(self.inputs)
        self.outputs_size_bytes = bytes_of(self.outputs)
        self.total_io_size_bytes = self.inputs_size_bytes + self.outputs_size_bytes
        if self.total_io_size_bytes != self.total_io_size_bytes or not (layer.inputs or layer.outputs):
            # A layer whose own tensors do not tell: what its ONNX nodes read and write, or not known, but not none.
            moved, weights = (nan if size is None else size for size in (layer.bytes_moved, layer.weight_bytes))
            self.total_io_size_bytes = moved - weights
        self.weights_size = _weights_size(layer, raw, self.type)
        self.total_footprint_bytes = self.total_io_size_bytes + self.weights_size

    @cached_property
    def timing(self) -> layers.Timing:
        """Times that a profiler recorded, summed up from the runs where those are known."""
        if runs := self.source.times_ms:
            return layers.Timing(total_ms=sum(runs), mean_ms=fmean(runs), median_ms=median(runs))
        return self.source.timing or layers.Timing()

    @cached_property
    def weights_cnt(self) -> int:
        """Number of weights."""
        return int((self.raw_dict.get("Weights") or {}).get("Count", 0))

    @cached_property
    def weights_type(self) -> str | None:
        """Type of the weights, in the file's word."""
        return (self.raw_dict.get("Weights") or {}).get("Type")

    @cached_property
    def bias_size(self) -> float:
        """Bytes of the bias; 0 where the record has none."""
        return constant_bytes(self.raw_dict.get("Bias") or {"Count": 0})

    def tooltip(self) -> str:
        """All raw keys, a line each, as dot files write line breaks."""
        return "".join(
            f"{key}:{value}\\n" for key, value in sorted(self.raw_dict.items()) if key not in _NOT_IN_TOOLTIP
        )

    def __repr__(self) -> str:
        return f"Layer({self.name})"


def constant_bytes(constant: Mapping[str, Any]) -> float:
    """Bytes of a `{"Type", "Count"}` record; NaN for a type that is not known, 0 where there are none of it."""
    count = constant.get("Count", nan)
    if count == 0:
        return 0
    bits = DTYPE_BITS.get(dtype_of(str(constant.get("Type"))) or "")
    return nan if bits is None else -(-count * bits // 8)


def fold_no_ops(layers: Sequence[Layer], bindings: Collection[str]) -> list[Layer]:
    """The layers without NoOps: what a NoOp wrote is read from where the NoOp read it.

    Only names change: a tensor keeps the shape and type that its reader gives it. A NoOp that writes a binding gives
    its input that name.
    """
    renamed: dict[str, str] = {}
    for layer in layers:
        if layer.subtype == "NoOp" and layer.inputs and layer.outputs:
            source, target = _resolve(layer.inputs[0].name, renamed), layer.outputs[0].name
            if target in bindings and source not in bindings:
                source, target = target, source
            if source != target:
                renamed[target] = source
    kept = [layer for layer in layers if layer.subtype != "NoOp"]
    for layer in kept if renamed else ():
        records = (*layer.raw_dict["Inputs"], *layer.raw_dict["Outputs"])
        for record, tensor in zip(records, (*layer.inputs, *layer.outputs), strict=True):
            record["Name"] = tensor.name = _resolve(tensor.name, renamed)
    return kept


def folded_layer(layer: Layer) -> layers.Layer:
    """The plan's layer under the names that folding gave it and its tensors."""
    source = layer.source
    changed: dict[str, Any] = {"name": layer.name}
    for side, tensors, records in (("inputs", source.inputs, "Inputs"), ("outputs", source.outputs, "Outputs")):
        pairs = zip(tensors, layer.raw_dict[records], strict=True)
        changed[side] = tuple(tensor.model_copy(update={"name": record["Name"]}) for tensor, record in pairs)
    return source.model_copy(update=changed)


def _resolve(name: str, renamed: Mapping[str, str]) -> str:
    seen = {name}
    while (name := renamed.get(name, name)) not in seen:
        seen.add(name)
    return name


def _type_of(raw: Mapping[str, Any]) -> str:
    kind, subtype = raw.get("ParameterType"), raw["LayerType"]
    if (kind, subtype) == ("Convolution", "CaskDeconvolutionV2"):
        return "Deconvolution"
    return str(kind or _TYPES.get(subtype, subtype))


def _weights_size(layer: layers.Layer, raw: Mapping[str, Any], kind: str) -> float:
    """Bytes of the weights without the bias, or those of the ONNX nodes; NaN where neither is known."""
    constants = [raw[key] for key in _WEIGHTS if isinstance(raw.get(key), Mapping)]
    if constants:
        return sum(map(constant_bytes, constants))
    if layer.weight_bytes is not None:
        return layer.weight_bytes
    return 0 if kind in _WEIGHTLESS or layer.kind == "shape" else nan
