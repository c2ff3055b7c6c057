"""Layers as the engine inspector and the profiler name them, of TensorRT 10 and of 11."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Any

import onnx

from tensorrt._api import MAJOR
from tensorrt._executor import Executor
from tensorrt._fusion import Group, fuse
from tensorrt._values import data_type, volume

_TYPE = {"FLOAT": "Float", "HALF": "Half", "BF16": "BFloat16", "INT64": "Int64", "INT32": "Int32", "BOOL": "Bool"}
_SHORT = {"Reshape": "Resh", "Transpose": "Tran", "LayerNormalization": "CastMeanSubMulMeanAddSqrtDivMulCastMulAdd"}
_SHORT |= {
    "InstanceNormalization": "CastMeanSubMulMeanAddSqrtDivMulCast",
    "Sigmoid": "Sigm",
    "Softmax": "MaxrSubExpSumDivMul",
}
_RECORD, _UNIT = "\x1e", "\x1f"


@dataclass
class EngineLayer:
    """One layer: how it is named, what it came from."""

    name: str
    group: Group
    native: bool

    def metadata(self) -> str:
        if self.group.kind == "host":
            return ""
        return (_RECORD if self.native else _UNIT).join(f"[ONNX Layer: {n.name}]" for n in self.group.nodes)


def layers_of(model: onnx.ModelProto) -> list[EngineLayer]:
    """In the order in which they run. TensorRT 10 has kernels of its own for convolutions, 11 leaves all to Myelin."""
    found, region, index = [], 0, 0
    for group in fuse(model):
        if group.kind == "conv" and MAJOR < 11:
            found.append(EngineLayer(" + ".join(n.name for n in group.nodes), group, native=True))
            region, index = region + (1 if index else 0), 0
            continue
        found.append(EngineLayer(f"{_stem(group)}_myl{region}_{index}", group, native=False))
        index += 1
    return found


def describe(
    layer: EngineLayer, executor: Executor, shapes: dict[str, tuple[int, ...]] | None, suffix: str
) -> dict[str, Any]:
    """The inspector's object; without shapes, what varies is -1."""
    tensors = executor.tensors(shapes) if shapes is not None else None
    group = layer.group
    entry: dict[str, Any] = {
        "Name": layer.name.replace("_myl", f"{suffix}_myl", 1) if suffix and not layer.native else layer.name + suffix,
        "LayerType": _layer_type(layer),
        "Inputs": [] if group.kind == "host" else [_tensor(n, layer, executor, tensors) for n in group.inputs],
        "Outputs": [] if group.kind == "host" else [_tensor(n, layer, executor, tensors) for n in group.outputs],
    }
    if layer.native:
        entry |= _convolution(group, executor.model)
    entry["TacticName"] = "" if group.kind == "host" else _tactic(layer)
    if layer.native:
        entry["TacticValue"] = f"0x{zlib.crc32(layer.name.encode()):016x}"
    return entry | {"StreamId": 0, "Metadata": layer.metadata()}


def shares(layers: list[EngineLayer], executor: Executor, shapes: dict[str, tuple[int, ...]]) -> list[float]:
    """The share of the time that each layer is said to take: by what it writes, products and convolutions dearer."""
    tensors = executor.tensors(shapes)
    dear = {"conv": 8.0, "gemm": 4.0, "mha": 6.0, "host": 0.0}
    costs = [
        dear.get(layer.group.kind, 1.0) * sum(volume(tensors[o][1]) for o in layer.group.outputs) + 1.0
        for layer in layers
    ]
    return [cost / sum(costs) for cost in costs]


def _stem(group: Group) -> str:
    if group.kind == "host":
        return "__mye1_0"
    if group.kind == "mha":
        return "_gemm_mha_v2"
    if group.kind in ("gemm", "conv"):
        return "+".join(n.name for n in group.nodes)
    return "__myl_" + "".join(_SHORT.get(n.op_type, n.op_type[:4]) for n in group.nodes)


def _layer_type(layer: EngineLayer) -> str:
    kinds = {"host": "shape_call", "gemm": "gemm", "mha": "kgen", "kgen": "kgen", "conv": "correlation"}
    return "CaskConvolution" if layer.native else kinds[layer.group.kind]


def _tactic(layer: EngineLayer) -> str:
    digest = f"{zlib.crc32(layer.metadata().encode()):032x}"
    if layer.group.kind == "conv":
        return f"sm80_xmma_fprop_implicit_gemm_tilesize128x128x32_{digest[-6:]}"
    if layer.group.kind == "gemm":
        return f"sm80_xmma_gemm_tilesize128x128x32_{digest[-6:]}"
    return f"{_stem(layer.group)}_0x{digest}"


def _tensor(name: str, layer: EngineLayer, executor: Executor, tensors: dict[str, Any] | None) -> dict[str, Any]:
    kind, shape = tensors[name] if tensors is not None else _declared(name, executor)
    text = _TYPE.get(kind.name, kind.name.title()) if kind is not None else "Float"
    entry: dict[str, Any] = {"Name": name}
    if layer.native:
        entry["Location"] = "Device"
    entry["Dimensions"] = list(shape)
    if MAJOR >= 11:
        return entry | {"Datatype": text, "Format": "Row major linear"}
    return entry | {"Format/Datatype": text}


def _declared(name: str, executor: Executor) -> tuple[Any, list[int]]:
    graph = executor.model.graph
    for value in (*graph.input, *graph.output, *graph.value_info):
        if value.name == name:
            kind = value.type.tensor_type
            return data_type(kind.elem_type), [d.dim_value if d.HasField("dim_value") else -1 for d in kind.shape.dim]
    return None, []


def _convolution(group: Group, model: onnx.ModelProto) -> dict[str, Any]:
    node = group.nodes[0]
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    dims = {t.name: (list(t.dims), data_type(t.data_type)) for t in model.graph.initializer}
    weight, kind = dims.get(node.input[1], ([0, 0, 1, 1], None))
    kernel = list(attributes.get("kernel_shape", weight[2:]))
    pads = list(attributes.get("pads", [0] * 2 * len(kernel)))
    text = _TYPE.get(kind.name, "Float") if kind is not None else "Float"
    biased = len(node.input) > 2
    return {
        "ParameterType": "Convolution",
        "Kernel": kernel,
        "PaddingMode": "kEXPLICIT_ROUND_DOWN",
        "PrePadding": pads[: len(kernel)],
        "PostPadding": pads[len(kernel) :],
        "Stride": list(attributes.get("strides", [1] * len(kernel))),
        "Dilation": list(attributes.get("dilations", [1] * len(kernel))),
        "OutMaps": weight[0],
        "Groups": attributes.get("group", 1),
        "Weights": {"Type": text, "Count": volume(weight)},
        "Bias": {"Type": text, "Count": weight[0] if biased else 0},
        "HasBias": int(biased),
        "HasReLU": int(len(group.nodes) > 1),
        "HasSparseWeights": 0,
        "HasDynamicFilter": 0,
        "HasDynamicBias": 0,
        "HasResidual": 0,
        "ConvXAsActInputIdx": -1,
        "BiasAsActInputIdx": -1,
        "ResAsActInputIdx": -1,
        "Activation": "RELU" if len(group.nodes) > 1 else "NONE",
    }
