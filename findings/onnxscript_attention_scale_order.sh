#!/usr/bin/env bash
# Guess: a product commutes, so onnxscript's fusions for ONNX Runtime find softmax((s * q) (s * k)^T) v whichever side of
#   its Mul the number s stands on.
# Version: onnxscript 0.7.2, onnx-ir 1.1.0, onnx 1.23.2.
# Behavior: with Mul(k, s) the attention becomes one MultiHeadAttention. With Mul(s, k), as "scale * k" is exported, it
#   stays seven nodes; no count, note or warning says so. Both graphs are valid and compute the same.
# Output seen:
#   Mul(k, s): sdpa=1 MultiHeadAttention=1 Softmax=0
#   Mul(s, k): sdpa=0 MultiHeadAttention=0 Softmax=1
# What follows: count the fused operators after optimize_for_ort, or put constants on the right before.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check onnx==1.23.2 onnx-ir==1.1.0 onnxscript==0.7.2 numpy==2.4.6
cat >"$work/fuse.py" <<'PY'
from collections import Counter

import numpy as np
import onnx
import onnx_ir
from onnx import TensorProto, helper, numpy_helper
from onnxscript.rewriter.ort_fusions import optimize_for_ort

HEADS, SIZE = 2, 8


def attention(scaled_keys):
    def node(op, inputs, output, **attributes):
        return helper.make_node(op, inputs, [output], f"/{output}", **attributes)

    nodes = [node("Transpose", [name], f"{name}_heads", perm=[0, 2, 1, 3]) for name in "qkv"]
    nodes += [
        node("Mul", ["q_heads", "s"], "queries"),
        node("Transpose", ["k_heads"], "k_columns", perm=[0, 1, 3, 2]),
        node("Mul", scaled_keys, "keys"),
        node("MatMul", ["queries", "keys"], "scores"),
        node("Softmax", ["scores"], "shares", axis=-1),
        node("MatMul", ["shares", "v_heads"], "mixed"),
        node("Transpose", ["mixed"], "y", perm=[0, 2, 1, 3]),
    ]
    shape = ["B", "T", HEADS, SIZE]
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in "qkv"]
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)
    factor = numpy_helper.from_array(np.float32(SIZE**-0.25), "s")
    graph = helper.make_graph(nodes, "g", inputs, [output], [factor])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    return model


for label, operands in (("Mul(k, s)", ["k_columns", "s"]), ("Mul(s, k)", ["s", "k_columns"])):
    model, counts = optimize_for_ort(onnx_ir.serde.deserialize_model(attention(operands)))
    ops = Counter(node.op_type for node in model.graph)
    print(f"{label}: sdpa={counts['sdpa']} MultiHeadAttention={ops['MultiHeadAttention']} Softmax={ops['Softmax']}")
PY
"$work/venv/bin/python" "$work/fuse.py" | tee "$work/seen"
diff "$work/seen" - <<'SEEN'
Mul(k, s): sdpa=1 MultiHeadAttention=1 Softmax=0
Mul(s, k): sdpa=0 MultiHeadAttention=0 Softmax=1
SEEN
