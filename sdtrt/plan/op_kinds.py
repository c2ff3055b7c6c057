"""The one mapping of ONNX operators to the closed vocabulary of `sdtrt.plan.layers.Kind`."""

from sdtrt.plan.layers import Kind

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
# Operators of a scaled-dot-product attention, named "sdpa" by the export: one operator or written out.
_SDPA = frozenset({"MatMul", "FusedMatMul", "Softmax", "Mul", "Add", "Attention"})
_KIND = {op: kind for kind, ops in _GROUPS.items() for op in ops.split()}


def kind_of(op: str) -> Kind:
    """Kind of an ONNX or ONNX Runtime operator; "other" for an unknown one."""
    return _KIND.get(op, "other")


def node_kind(node: str, op: str) -> Kind:
    """Kind of a node: that of its operator, but "attention" for the matmuls and the softmax of an attention."""
    return "attention" if "/sdpa/" in node and op in _SDPA else kind_of(op)
