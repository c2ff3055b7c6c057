"""A U-Net of two blocks as torch exports one from diffusers, small enough to price in a second.

Half-precision weights, norms in float32 between casts, self- and cross-attention written out, dynamic sizes B, H, W.
Each node stands in a group: what an engine's fusion makes one layer of.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SHAPES = {"sample": (2, 4, 16, 16), "timestep": (1,), "encoder_hidden_states": (2, 8, 32)}
CHANNELS, TEXT, HEADS, GROUPS, TIME = 32, 32, 2, 8, 64
HALF, FLOAT = TensorProto.FLOAT16, TensorProto.FLOAT


@dataclass
class Group:
    """Nodes that run as one layer: `kind` is conv, gemm, attention, kgen or copy; `also` runs in part only."""

    kind: str
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    also: list[onnx.NodeProto] = field(default_factory=list)


class Net:
    """Nodes, weights and groups, in order."""

    def __init__(self) -> None:
        self.weights: list[onnx.TensorProto] = []
        self.groups: list[Group] = []
        self.rng = np.random.default_rng(0)

    @contextmanager
    def layer(self, kind: str) -> Iterator[None]:
        """What is added inside is one layer of the engine."""
        self.groups.append(Group(kind))
        yield

    def op(self, name: str, op: str, *inputs: str, outputs: int = 1, **attributes: object) -> str:
        """Add a node, in the present group; the names of its outputs follow torch's exporter."""
        names = [f"{name}_output_{i}" for i in range(outputs)]
        self.groups[-1].nodes.append(helper.make_node(op, inputs, names, name=name, **attributes))
        return names[0]

    def weight(self, name: str, *shape: int, dtype: type = np.float16) -> str:
        """Add random weights."""
        values = self.rng.standard_normal(shape) / math.sqrt(math.prod(shape[1:]) or 1)
        return self.constant(name, values.astype(dtype))

    def constant(self, name: str, values: object) -> str:
        """Add given values."""
        self.weights.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def conv(self, path: str, x: str, cin: int, cout: int, size: int = 3, stride: int = 1) -> str:
        """A convolution with bias."""
        weights = (self.weight(f"{path[1:]}.weight", cout, cin, size, size), self.weight(f"{path[1:]}.bias", cout))
        pads = [size // 2] * 4
        return self.op(f"{path}/Conv", "Conv", x, *weights, kernel_shape=[size] * 2, pads=pads, strides=[stride] * 2)

    def linear(self, path: str, x: str, cin: int, cout: int, bias: bool = True) -> str:
        """A product of its own layer; the bias is added in the same."""
        with self.layer("gemm"):
            out = self.op(f"{path}/MatMul", "MatMul", x, self.weight(f"onnx::MatMul_{path}", cin, cout))
            return self.op(f"{path}/Add", "Add", self.weight(f"{path[1:]}.bias", cout), out) if bias else out

    def norm(self, path: str, act: str, x: str, channels: int) -> str:
        """A group norm in float32 between casts, and SiLU after it when `act` names one: one layer."""
        with self.layer("kgen"):
            x = self.op(f"{path}/Cast", "Cast", x, to=FLOAT)
            groups = self.constant(f"{path}/Constant_output_0", np.array([0, GROUPS, -1], np.int64))
            ones = self.constant(f"{path}/ones", np.ones(GROUPS, np.float32))
            zeros = self.constant(f"{path}/zeros", np.zeros(GROUPS, np.float32))
            flat = self.op(f"{path}/Reshape", "Reshape", x, groups)
            flat = self.op(f"{path}/InstanceNormalization", "InstanceNormalization", flat, ones, zeros)
            y = self.op(f"{path}/Reshape_1", "Reshape", flat, self.op(f"{path}/Shape", "Shape", x))
            y = self.op(f"{path}/Mul", "Mul", y, self.weight(f"{path}.weight", channels, 1, 1, dtype=np.float32))
            y = self.op(f"{path}/Add", "Add", y, self.weight(f"{path}.bias", channels, 1, 1, dtype=np.float32))
            y = self.op(f"{path}/Cast_1", "Cast", y, to=HALF)
            return self.silu(act, y) if act else y

    def silu(self, path: str, x: str) -> str:
        """x * sigmoid(x), in the present group."""
        return self.op(f"{path}/Mul", "Mul", x, self.op(f"{path}/Sigmoid", "Sigmoid", x))


def unet() -> Net:
    """The whole network."""
    net = Net()
    temb = _time(net)
    with net.layer("conv"):
        x = net.op("/conv_in/Relu", "Relu", net.conv("/conv_in", "sample", 4, CHANNELS))
    skip, block = x, "/down_blocks.0"
    x = _resnet(net, f"{block}/resnets.0", x, temb, CHANNELS, CHANNELS)
    x = _transformer(net, f"{block}/attentions.0", x)
    with net.layer("conv"):
        x = net.conv(f"{block}/downsamplers.0/conv", x, CHANNELS, CHANNELS, stride=2)
    block = "/up_blocks.0"
    with net.layer("copy"):
        scales = net.constant(f"{block}/upsamplers.0/Constant_output_0", np.array([1, 1, 2, 2], np.float32))
        x = net.op(f"{block}/upsamplers.0/Resize", "Resize", x, "", scales, mode="nearest")
    with net.layer("conv"):
        x = net.conv(f"{block}/upsamplers.0/conv", x, CHANNELS, CHANNELS)
    with net.layer("copy"):
        x = net.op(f"{block}/Concat", "Concat", x, skip, axis=1)
    x = _resnet(net, f"{block}/resnets.0", x, temb, 2 * CHANNELS, CHANNELS)
    x = net.norm("/conv_norm_out", "/conv_act", x, CHANNELS)
    with net.layer("conv"):
        net.conv("/conv_out", x, CHANNELS, 4)
    net.groups[-1].nodes[-1].output[0] = "out_sample"
    return net


def _time(net: Net) -> str:
    with net.layer("kgen"):
        t = net.op("/time_proj/Cast", "Cast", "timestep", to=FLOAT)
        t = net.op("/time_proj/Unsqueeze", "Unsqueeze", t, net.constant("/time_proj/axes", np.array([1], np.int64)))
        t = net.op("/time_proj/Mul", "Mul", t, net.weight("/time_proj/freqs", 1, CHANNELS // 2, dtype=np.float32))
        waves = (net.op("/time_proj/Cos", "Cos", t), net.op("/time_proj/Sin", "Sin", t))
        t = net.op("/Cast", "Cast", net.op("/time_proj/Concat", "Concat", *waves, axis=-1), to=HALF)
    for path, cin in (("/time_embedding/linear_1", CHANNELS), ("/time_embedding/linear_2", TIME)):
        with net.layer("gemm"):
            weights = (net.weight(f"{path[1:]}.weight", TIME, cin), net.weight(f"{path[1:]}.bias", TIME))
            t = net.op(f"{path}/Gemm", "Gemm", t, *weights, transB=1)
            if path.endswith("1"):
                t = net.silu("/time_embedding/act", t)
    return t


def _resnet(net: Net, path: str, x: str, temb: str, cin: int, cout: int) -> str:
    y = net.norm(f"{path}/norm1", f"{path}/nonlinearity", x, cin)
    with net.layer("conv"):
        y = net.conv(f"{path}/conv1", y, cin, cout)
    with net.layer("kgen"):
        t = net.silu(f"{path}/nonlinearity_1", temb)
    with net.layer("gemm"):
        weights = (
            net.weight(f"{path}.time_emb_proj.weight", cout, TIME),
            net.weight(f"{path}.time_emb_proj.bias", cout),
        )
        t = net.op(f"{path}/time_emb_proj/Gemm", "Gemm", t, *weights, transB=1)
    with net.layer("kgen"):
        axes = net.constant(f"{path}/axes", np.array([2, 3], np.int64))
        y = net.op(f"{path}/Add", "Add", y, net.op(f"{path}/Unsqueeze", "Unsqueeze", t, axes))
    y = net.norm(f"{path}/norm2", f"{path}/nonlinearity_2", y, cout)
    if cin != cout:
        with net.layer("conv"):
            x = net.conv(f"{path}/conv_shortcut", x, cin, cout, size=1)
    with net.layer("conv"):
        return net.op(f"{path}/Add_1", "Add", x, net.conv(f"{path}/conv2", y, cout, cout))


def _transformer(net: Net, path: str, x: str) -> str:
    y = net.norm(f"{path}/norm", "", x, CHANNELS)
    with net.layer("conv"):
        y = net.conv(f"{path}/proj_in", y, CHANNELS, CHANNELS, size=1)
    with net.layer("kgen"):
        shape = net.op(f"{path}/Shape", "Shape", y)
        y = net.op(f"{path}/Transpose", "Transpose", y, perm=[0, 2, 3, 1])
        y = net.op(
            f"{path}/Reshape", "Reshape", y, net.constant(f"{path}/tokens", np.array([0, -1, CHANNELS], np.int64))
        )
    block = f"{path}/transformer_blocks.0"
    y = _attention(net, f"{block}/attn1", f"{block}/norm1", y, None)
    y = _attention(net, f"{block}/attn2", f"{block}/norm2", y, "encoder_hidden_states")
    y = _feed_forward(net, block, y)
    with net.layer("kgen"):
        halves = [
            net.constant(f"{path}/{n}", np.array(v, np.int64)) for n, v in (("s", [0]), ("e", [1]), ("c", [CHANNELS]))
        ]
        batch = net.op(f"{path}/Slice", "Slice", shape, *halves[:2])
        sides = net.op(
            f"{path}/Slice_1", "Slice", shape, *(net.constant(f"{path}/{v}", np.array([v], np.int64)) for v in (2, 4))
        )
        target = net.op(f"{path}/Concat", "Concat", batch, sides, halves[2], axis=0)
        y = net.op(f"{path}/Reshape_1", "Reshape", y, target)
        y = net.op(f"{path}/Transpose_1", "Transpose", y, perm=[0, 3, 1, 2])
    with net.layer("conv"):
        return net.op(f"{path}/Add", "Add", net.conv(f"{path}/proj_out", y, CHANNELS, CHANNELS, size=1), x)


def _layer_norm(net: Net, path: str, x: str) -> str:
    with net.layer("kgen"):
        scales = (net.weight(f"{path}.weight", CHANNELS), net.weight(f"{path}.bias", CHANNELS))
        return net.op(f"{path}/LayerNormalization", "LayerNormalization", x, *scales, axis=-1)


def _attention(net: Net, path: str, norm: str, x: str, context: str | None) -> str:
    y = _layer_norm(net, norm, x)
    source, width = (context, TEXT) if context else (y, CHANNELS)
    heads = net.constant(f"{path}/heads", np.array([0, 0, HEADS, CHANNELS // HEADS], np.int64))
    parts = {n: net.linear(f"{path}/to_{n}", y if n == "q" else source, width, CHANNELS, bias=False) for n in "qkv"}
    for number, (name, part) in enumerate(parts.items()):
        with net.layer("kgen"):
            suffix = f"_{number}" if number else ""
            perm = [0, 2, 3, 1] if name == "k" else [0, 2, 1, 3]
            split = net.op(f"{path}/Reshape{suffix}", "Reshape", part, heads)
            parts[name] = net.op(f"{path}/Transpose{suffix}", "Transpose", split, perm=perm)
    with net.layer("attention"):
        scores = net.op(f"{path}/MatMul", "MatMul", parts["q"], parts["k"])
        scale = net.constant(f"{path}/scale", np.float16((CHANNELS // HEADS) ** -0.5))
        weights = net.op(f"{path}/Softmax", "Softmax", net.op(f"{path}/Mul", "Mul", scores, scale), axis=-1)
        y = net.op(f"{path}/MatMul_1", "MatMul", weights, parts["v"])
    with net.layer("kgen"):
        merged = net.constant(f"{path}/merged", np.array([0, 0, CHANNELS], np.int64))
        y = net.op(f"{path}/Transpose_3", "Transpose", y, perm=[0, 2, 1, 3])
        y = net.op(f"{path}/Reshape_3", "Reshape", y, merged)
    y = net.linear(f"{path}/to_out.0", y, CHANNELS, CHANNELS)
    with net.layer("kgen"):
        return net.op(f"{path}/Add", "Add", y, x)


def _feed_forward(net: Net, path: str, x: str) -> str:
    y = net.linear(f"{path}/ff/net.0/proj", _layer_norm(net, f"{path}/norm3", x), CHANNELS, 8 * CHANNELS)
    act = f"{path}/ff/net.0"
    with net.layer("kgen"):
        value = net.op(f"{act}/Split", "Split", y, outputs=2, axis=-1, num_outputs=2)
        gate = value.replace("_output_0", "_output_1")
        root, one, half = (net.constant(f"{act}/{n}", np.float16(v)) for n, v in (("2", 2**0.5), ("1", 1), ("h", 0.5)))
        erf = net.op(f"{act}/Erf", "Erf", net.op(f"{act}/Div", "Div", gate, root))
        wide = net.op(f"{act}/Mul", "Mul", gate, net.op(f"{act}/Add", "Add", erf, one))
        y = net.op(f"{act}/Mul_2", "Mul", value, net.op(f"{act}/Mul_1", "Mul", wide, half))
    y = net.linear(f"{path}/ff/net.2", y, 4 * CHANNELS, CHANNELS)
    with net.layer("kgen"):
        return net.op(f"{path}/Add", "Add", y, x)


def write_onnx(path: Path, net: Net) -> None:
    """Write the network as an ONNX file."""
    inputs = [
        helper.make_tensor_value_info("sample", HALF, ["B", 4, "H", "W"]),
        helper.make_tensor_value_info("timestep", TensorProto.INT64, [1]),
        helper.make_tensor_value_info("encoder_hidden_states", HALF, ["B", SHAPES["encoder_hidden_states"][1], TEXT]),
    ]
    outputs = [helper.make_tensor_value_info("out_sample", HALF, ["B", 4, "H", "W"])]
    nodes = [node for group in net.groups for node in group.nodes]
    graph = helper.make_graph(nodes, "unet", inputs, outputs, net.weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    onnx.save(model, path)
