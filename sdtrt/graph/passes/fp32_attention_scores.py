"""Attention scores in float32, from the MatMul of queries and keys to the softmax: SD 2.1 overflows there."""

import onnx

from sdtrt.graph.run_passes import Result
from sdtrt.graph.widen_fp32 import score_nodes, widen

VERSION = 1


def apply(model: onnx.ModelProto) -> Result[onnx.ModelProto]:
    """Widen the scores of every attention."""
    return Result(model, widen(model, set(score_nodes(model))).changed)
