"""ONNX operators mapped, once, to the closed vocabulary of `sdtrt.plan.Kind`."""

from __future__ import annotations

from sdtrt.plan import Kind

_GROUPS: dict[Kind, str] = {
    "conv": "Conv ConvTranspose FusedConv NhwcFusedConv",
    "gemm": "MatMul Gemm FusedMatMul FusedGemm MatMulNBits",
    "attention": "Attention MultiHeadAttention PackedMultiHeadAttention",
    "norm": "GroupNormalization InstanceNormalization LayerNormalization SkipLayerNormalization "
    "BatchNormalization RMSNormalization SimplifiedLayerNormalization GroupNorm SkipGroupNorm Softmax",
    "pointwise": "Add Sub Mul Div Pow Sqrt Exp Log Neg Abs Sigmoid Tanh Erf Relu Gelu FastGelu QuickGelu BiasGelu "
    "Swish Cos Sin Clip Where Equal Less Greater And Or Not Max Min Reciprocal ReduceMean ReduceSum Softplus "
    "BiasSplitGelu Silu Trilu IsNaN Mod Floor Ceil Round BiasAdd",
    "reformat": "Transpose Cast ReorderInput ReorderOutput Pad",
    "copy": "Concat Split Slice Gather GatherND GatherElements Expand Tile Resize Upsample ScatterND "
    "MemcpyToHost MemcpyFromHost Identity",
    "shape": "Shape Reshape Squeeze Unsqueeze Flatten ConstantOfShape Constant Range Size",
}
_KIND = {op: kind for kind, ops in _GROUPS.items() for op in ops.split()}


def kind_of(op: str) -> Kind:
    """Kind of an ONNX or ONNX Runtime operator; "other" for one that is not known."""
    return _KIND.get(op, "other")


def module_of(node: str) -> str:
    """The diffusers module in a node's name: "/mid_block/attentions.0/sdpa/MatMul_1" -> "mid_block.attentions.0"."""
    return ".".join(part for part in node.strip("/").split("/")[:-1] if part != "sdpa")
