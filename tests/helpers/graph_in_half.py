"""Hand-made half precision graphs whose node names say their module, as exported ones do."""

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

WIDTH = 8


def make(path, nodes, weights, outputs=("y",)):
    """Write nodes (name, op, inputs, output, attributes) over the input "x" (B, WIDTH) to `path`."""
    made = [helper.make_node(op, inputs, [out], name, **more) for name, op, inputs, out, more in nodes]
    tensors = [numpy_helper.from_array(np.asarray(w), n) for n, w in weights.items()]
    infos = [helper.make_tensor_value_info("x", TensorProto.FLOAT16, ["B", WIDTH])]
    results = [helper.make_tensor_value_info(o, TensorProto.FLOAT16, ["B", WIDTH]) for o in outputs]
    graph = helper.make_graph(made, "half", infos, results, tensors)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


def overflowing(path):
    """A sum that grows to about 1e6 between two modules and is normalized; Reshape is what rounds it on a CPU."""
    weight = np.eye(WIDTH, dtype=np.float16)
    nodes = [
        ("/first/Mul", "Mul", ["x", "small"], "a", {}),
        ("/grow/MatMul", "MatMul", ["a", "grow.weight"], "b", {}),
        ("/grow/Mul", "Mul", ["b", "gain"], "c", {}),
        ("/grow/Reshape", "Reshape", ["c", "shape"], "d", {}),
        ("/norm/LayerNormalization", "LayerNormalization", ["d", "norm.weight"], "e", {"epsilon": 1e-5}),
        ("/last/Mul", "Mul", ["e", "small"], "y", {}),
    ]
    half = {"small": 0.5, "gain": 60000.0}
    weights = {n: np.float16(v) for n, v in half.items()} | {"shape": np.array([-1, WIDTH], np.int64)}
    return make(path, nodes, weights | {"grow.weight": weight * 30, "norm.weight": np.ones(WIDTH, np.float16)})


def chain(path, count):
    """`count` modules "m00", "m01", ... one after the other, none of which overflows."""
    names = ["x", *(f"t{i}" for i in range(count - 1)), "y"]
    nodes = [(f"/m{i:02d}/Mul", "Mul", [names[i], "one"], names[i + 1], {}) for i in range(count)]
    return make(path, nodes, {"one": np.float16(1)})


def attention(path):
    """Scores, softmax, weighted sum, with a scale and a mask in between."""
    nodes = [
        ("/attn/to_q/MatMul", "MatMul", ["x", "w"], "q", {}),
        ("/attn/sdpa/Transpose", "Transpose", ["x"], "k", {"perm": [1, 0]}),
        ("/attn/sdpa/MatMul", "MatMul", ["q", "k"], "s", {}),
        ("/attn/sdpa/Mul", "Mul", ["s", "one"], "scaled", {}),
        ("/attn/sdpa/Add", "Add", ["scaled", "one"], "masked", {}),
        ("/attn/sdpa/Softmax", "Softmax", ["masked"], "p", {}),
        ("/attn/sdpa/MatMul_1", "MatMul", ["p", "x"], "y", {}),
    ]
    return make(path, nodes, {"w": np.eye(WIDTH, dtype=np.float16), "one": np.float16(1)})


def run(path, x):
    """Outputs in float32, by ONNX Runtime."""
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return [o.astype(np.float32) for o in session.run(None, {"x": x})]
