"""What trtexec and TREx leave of an engine, written as TensorRT 8.6, 10 and 11 write it: for tests without a GPU.

`write` makes a U-Net's ONNX file and the dumps of an engine that was built from it; `synthetic` an engine of any size.
The forms follow TensorRT's; the times are made up: a launch, and what each layer computes and moves.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zlib import crc32

from onnx import NodeProto
from trt_files import RUNS, Dump, save
from unet_onnx import SHAPES, Group, unet, write_onnx

from sdtrt.costs import GraphCosts, graph_costs

__all__ = ["RUNS", "Dump", "onnx_names", "synthetic", "write"]

_LONG = {
    "float16": ("Row major linear FP16 format", "Channel major FP16 format where channel % 8 == 0"),
    "float32": ("Row major linear FP32", "Channel major FP32 format where channel % 4 == 0"),
    "int64": ("Row major linear Int64 format",) * 2,
}
_SHORT = {"float16": "Half", "float32": "Float", "int64": "Int64"}
_TOKENS = {
    "InstanceNormalization": "MeanSubMulMeanAddSqrtDivMul",
    "LayerNormalization": "MeanSubMulMeanAddSqrtDivMulAdd",
    "Reshape": "Resh",
    "Unsqueeze": "Resh",
    "Shape": "",
    "Transpose": "Tran",
    "Sigmoid": "NegExpAddDiv",
    "Concat": "Conc",
    "Slice": "Slic",
    "Split": "Slic",
    "Resize": "Resi",
    "Softmax": "MaxrSubExpSumDivMul",
}


def write(
    folder: Path, version: str = "10", profiles: int = 1, *, name: str = "unet", active: int = 0, slower: float = 1.0
) -> Dump:
    """Write the U-Net and its engine's dumps as TensorRT `version` ("8", "10" or "11") writes them.

    `active` is the optimization profile that was timed, `slower` stretches all times.
    """
    folder.mkdir(parents=True, exist_ok=True)
    net, path = unet(), folder / f"{name}.onnx"
    write_onnx(path, net)
    costs = graph_costs(path, SHAPES)
    other = graph_costs(path, {"sample": (4, 4, 32, 32), "timestep": (1,), "encoder_hidden_states": (4, 8, 32)})
    blocks = [_Engine(costs, other, version, p).layers(net.groups) for p in range(profiles)]
    layers = [layer for block in blocks for layer in block]
    times = [_time_ms(layer, costs) * slower for layer in blocks[active]]
    return save(folder, name, version, layers, blocks[active], times, profiles)


def synthetic(folder: Path, n_layers: int, name: str = "synthetic") -> Dump:
    """Write the dumps, in TensorRT 10's form, of an engine of `n_layers` layers in transformer blocks; no ONNX file."""
    folder.mkdir(parents=True, exist_ok=True)
    layers = []
    for i in range(n_layers):
        module = f"/down_blocks.{i // 600}/attentions.{i // 100 % 6}/transformer_blocks.{i // 10 % 10}"
        node, gemm = f"{module}/{('attn1/to_q/MatMul', 'norm1/Mul')[i % 2]}_{i}", i % 2 == 0
        made = {
            "Name": f"{node}_myl0_{i}" if gemm else f"__myl_CastMulAdd_myl0_{i}",
            "LayerType": "gemm" if gemm else "kgen",
            "Inputs": [{"Name": f"t{i}", "Dimensions": [2, 4096, 320], "Format/Datatype": "Half"}],
            "Outputs": [{"Name": f"t{i + 1}", "Dimensions": [2, 4096, 320], "Format/Datatype": "Half"}],
            "TacticName": _GEMM_TACTIC if gemm else f"__myl_CastMulAdd_0x{_hash(node)}",
            "StreamId": 0,
            "Metadata": f"[ONNX Layer: {node}]",
        }
        layers.append(made)
    times = [0.002 + crc32(x["Name"].encode()) % 1000 / 1e5 for x in layers]
    return save(folder, name, "10", layers, layers, times, 1)


_GEMM_TACTIC = "sm90_xmma_gemm_f16f16_f16f32_f32_tn_n_tilesize128x128x64_stage4_warpsize2x2x1_tensor16x8x16"
_CONV_TACTIC = "sm80_xmma_fprop_implicit_gemm_f16f16_f16f32_f32_nhwckrsc_nhwc_tilesize128x64x32_stage4_g1_tensor16x8x16"


@dataclass
class _Engine:
    """Layers of one optimization profile."""

    costs: GraphCosts
    other: GraphCosts
    version: str
    profile: int
    made: list[dict[str, Any]] = field(default_factory=list)
    region: int = -1
    number: int = 0
    inner: dict[str, str] = field(default_factory=dict)

    def layers(self, groups: list[Group]) -> list[dict[str, Any]]:
        parts = [part for group in groups for part in self._split(group)]
        region: list[Group] = []
        for part in parts:
            if self._native(part):
                self._flush(region, parts)
                region = []
                (self._conv if part.kind == "conv" else self._copy)(part)
            else:
                region.append(part)
        self._flush(region, parts)
        if self.version != "11":
            self._no_op()
        return self.made

    def _native(self, group: Group) -> bool:
        return self.version != "11" and (group.kind == "conv" or (self.version == "8" and group.kind == "copy"))

    def _split(self, group: Group) -> list[Group]:
        """Cross-attention is not fused by TensorRT here: two products and a softmax in two kernels."""
        if group.kind != "attention" or "attn2" not in group.nodes[0].name:
            return [group]
        first, scale, softmax, second = group.nodes
        soft = [Group("kgen", [scale], also=[softmax]), Group("kgen", [softmax])]
        return [Group("gemm", [first]), *soft, Group("gemm", [second])]

    def _suffix(self) -> str:
        return f" [profile {self.profile}]" if self.profile else ""

    def _ends(self, nodes: list[NodeProto]) -> tuple[list[str], list[str]]:
        names = {n.name for n in nodes}
        written = [t for n in nodes for t in self.costs.writes[n.name] if self._visible(t)]
        read = [t for n in nodes for t in self.costs.reads[n.name] if self._visible(t) and t not in written]
        leaving = [t for t in written if self.costs.users[t] - names or t in self.costs.outputs]
        return list(dict.fromkeys(read)), leaving

    def _visible(self, name: str) -> bool:
        info = self.costs.tensors[name]
        return name in SHAPES or info.dtype != "int64"

    def _tensor(self, name: str, *, native: bool, vector: bool = False, shown: str = "") -> dict[str, Any]:
        info = self.costs.tensors[name]
        dims = list(info.shape or ())
        if not native:
            fixed = self.other.tensors[name].shape or ()
            dims = [a if a == b else -1 for a, b in zip(dims, fixed, strict=True)]
        made: dict[str, Any] = {"Name": shown or self.inner.get(name) or name + self._suffix()}
        made |= {"Location": "Device"} if native else {}
        made["Dimensions"] = dims
        if self.version == "11":
            order = list(range(len(dims)))
            made |= {"Datatype": _SHORT[info.dtype or ""], "Format": "Linear", "StrideOrder": order}
        else:
            made["Format/Datatype"] = _LONG[info.dtype or ""][vector] if native else _SHORT[info.dtype or ""]
        return made

    def _add(self, name: str, kind: str, inputs: list[Any], outputs: list[Any], **more: Any) -> None:
        self.made.append({"Name": name, "LayerType": kind, "Inputs": inputs, "Outputs": outputs, **more})

    def _conv(self, group: Group) -> None:
        read, leaving = self._ends(group.nodes)
        name = " + ".join(n.name for n in group.nodes) + self._suffix()
        inputs = []
        for index, tensor in enumerate(read):
            producer = next((x for x in self.made for t in x["Outputs"] if t["Name"] == tensor + self._suffix()), None)
            if producer is None or producer["LayerType"] != "CaskConvolution":
                shown = f"Reformatted Input Tensor {index} to {name}"
                wide = self._tensor(tensor, native=True, vector=True, shown=shown)
                self._reformat(f"Reformatting CopyNode for Input Tensor {index} to {name}", tensor, wide)
                inputs.append(wide)
            else:
                inputs.append(self._tensor(tensor, native=True, vector=True))
        conv = next(n for n in group.nodes if n.op_type == "Conv")
        facts = {a.name: list(a.ints) for a in conv.attribute}
        channels, out = inputs[0]["Dimensions"][1], self.costs.tensors[leaving[0]].shape[1]
        relu = any(n.op_type == "Relu" for n in group.nodes)
        self._add(
            name,
            "CaskConvolution",
            inputs,
            [self._tensor(t, native=True, vector=True) for t in leaving],
            ParameterType="Convolution",
            Kernel=facts["kernel_shape"],
            PaddingMode="kEXPLICIT_ROUND_DOWN",
            PrePadding=facts["pads"][:2],
            PostPadding=facts["pads"][2:],
            Stride=facts["strides"],
            Dilation=[1, 1],
            OutMaps=out,
            Groups=1,
            Weights={"Type": "Half", "Count": out * channels * facts["kernel_shape"][0] ** 2},
            Bias={"Type": "Half", "Count": out},
            HasBias=1,
            HasReLU=int(relu),
            HasSparseWeights=0,
            **({"HasResidual": int(len(read) > 1)} if self.version == "10" else {}),
            Activation="RELU" if relu else "NONE",
            TacticName=_CONV_TACTIC,
            TacticValue=f"0x{_hash(name)[:16]}",
            StreamId=0,
            Metadata="\x1e".join(f"[ONNX Layer: {n.name}]" for n in group.nodes),
        )

    def _reformat(self, name: str, tensor: str, out: dict[str, Any], kind: str = "Reformat") -> None:
        more = {"ParameterType": "Reformat", "Origin": "REFORMAT"} if kind == "Reformat" else {}
        source = self._tensor(tensor, native=True)
        self._add(name, kind, [source], [out], **more, TacticValue="0x0000000000000000", StreamId=0, Metadata="")

    def _copy(self, group: Group) -> None:
        node = group.nodes[0]
        read, leaving = self._ends(group.nodes)
        out = self._tensor(leaving[0], native=True)
        if node.op_type == "Concat":
            for tensor in read:
                self._reformat(f"{tensor}{self._suffix()} copy", tensor, out)
            return
        more = {"ParameterType": "Resize", "Mode": "kNEAREST", "Scales": [1, 1, 2, 2]}
        inputs, metadata = [self._tensor(t, native=True) for t in read], f"[ONNX Layer: {node.name}]"
        self._add(node.name + self._suffix(), "Resize", inputs, [out], **more, StreamId=0, Metadata=metadata)

    def _no_op(self) -> None:
        wide, name = self.made[-1]["Outputs"][0], self.made[-1]["Name"]
        wide["Name"] = f"Reformatted Output Tensor 0 to {name}"
        self._reformat(f"Reformatting CopyNode for Output Tensor 0 to {name}", "out_sample", {}, "NoOp")
        self.made[-1] |= {"Inputs": [wide], "Outputs": [self._tensor("out_sample", native=True)]}

    def _flush(self, region: list[Group], parts: list[Group]) -> None:
        """A Myelin region: one opaque layer in TensorRT 8, a kernel per group later."""
        if not region:
            return
        nodes = [n for g in region for n in g.nodes]
        if self.version == "8":
            read, leaving = self._ends(nodes)
            name = f"{{ForeignNode[{nodes[0].name}...{nodes[-1].name}]}}{self._suffix()}"
            tensors = [[self._tensor(t, native=True) for t in side] for side in (read, leaving)]
            self._add(name, "Myelin", *tensors, TacticValue="0x0000000000000000", StreamId=0, Metadata="")
            return
        self.region += 1
        self.number = 0
        key = f"_myl{self.region * 3 + 40 * self.profile}"
        self._add(
            f"__mye{59 + 200 * self.profile}_0{key}_0", "shape_call", [], [], TacticName="", StreamId=0, Metadata=""
        )
        for group in region:
            self._kernel(group, key, nodes)

    def _kernel(self, group: Group, key: str, region: list[NodeProto]) -> None:
        self.number += 1
        read, leaving = self._ends(group.nodes)
        inputs = [self._tensor(t, native=False) for t in read]
        border = set(self._ends(region)[1])
        for index, name in enumerate(n for n in leaving if n not in border):
            owned = f"{name}{self._suffix()}.1_{self.number}{key}"
            self.inner[name] = owned if group.kind == "gemm" else f"__myln_k_arg__bb1_{self.number + index}{key}"
        outputs = [self._tensor(t, native=False) for t in leaving]
        name, kind, tactic = self._identity(group)
        name = f"{name}{self._suffix() if kind != 'kgen' else ''}{key}_{self.number}"
        # A residual that is read twice is listed twice, as TensorRT does.
        inputs += inputs[:1] if len(inputs) == 1 and kind == "kgen" and "Maxr" in tactic else []
        metadata = "\x1f".join(f"[ONNX Layer: {n.name}]" for n in (*group.nodes, *group.also))
        more = {"Constants": []} if self.version == "11" else {}
        self._add(name, kind, inputs, outputs, **more, TacticName=tactic, StreamId=0, Metadata=metadata)

    def _identity(self, group: Group) -> tuple[str, str, str]:
        if group.kind == "gemm":
            return group.nodes[0].name, "gemm", _GEMM_TACTIC
        if group.kind == "conv":
            return next(n.name for n in group.nodes if n.op_type == "Conv"), "correlation", _CONV_TACTIC
        if group.kind == "attention":
            return "_gemm_mha_v2", "kgen", f"_gemm_mha_v2_0x{_hash(group.nodes[0].name)}"
        tokens = "".join(_TOKENS.get(n.op_type, n.op_type) for n in (*group.nodes, *group.also))
        return f"__myl_{tokens}", "kgen", f"__myl_{tokens}_0x{_hash(tokens)}"


def _hash(text: str) -> str:
    return "".join(f"{crc32(f'{text}{i}'.encode()):08x}" for i in range(4))


def _time_ms(layer: dict[str, Any], costs: GraphCosts) -> float:
    """A launch, 2 TFLOP/s and 200 GB/s, and up to a tenth more."""
    if layer["LayerType"] in ("NoOp", "shape_call"):
        return 0.0 if layer["LayerType"] == "NoOp" else 0.0015
    named = [costs.nodes[n] for n in re.findall(r"\[ONNX Layer: ([^\]]+)\]", layer["Metadata"])]
    work = sum((c.flops or 0) / 2e9 + (c.bytes_moved or 0) / 2e8 for c in named)
    opaque = 0.05 if layer["LayerType"] == "Myelin" else 0.0
    return (0.002 + opaque + work) * (1 + crc32(layer["Name"].encode()) % 100 / 1000)


def onnx_names(layers: Iterable[dict[str, Any]]) -> set[str]:
    """ONNX nodes that layers of a graph file name in their metadata."""
    return {n for x in layers for n in re.findall(r"\[ONNX Layer: ([^\]]+)\]", x.get("Metadata", ""))}
