"""The peak of a graph's activations, against graphs whose peak can be counted by hand."""

import onnx
import pytest
from onnx import TensorProto, helper

from sdtrt.costs import graph_costs, peak_bytes

UNIT = 400  # bytes of a tensor of 100 float32


def peak(tmp_path, nodes, outputs, weights=()):
    made = [helper.make_node(op, i, o, name=f"n{k}", **a) for k, (op, i, o, a) in enumerate(nodes)]
    graph = helper.make_graph(
        made,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["B", 100])],
        [helper.make_tensor_value_info(o, TensorProto.FLOAT, None) for o in outputs],
        initializer=list(weights),
    )
    path = tmp_path / "g.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)]), path)
    return [peak_bytes(graph_costs(path, {"x": (batch, 100)})) / (batch * UNIT) for batch in (1, 3)]


def chain(*ops):
    names = ["x", *(f"t{i}" for i in range(len(ops) - 1)), "y"]
    return [(op, [names[i]], [names[i + 1]], {}) for i, op in enumerate(ops)]


def test_in_a_chain_each_tensor_is_freed_after_its_reader(tmp_path):
    # Input and output exist all the time; of what is between, two at once.
    assert peak(tmp_path, chain("Relu", "Relu", "Relu", "Relu"), ["y"]) == [4, 4]


def test_a_skip_connection_is_kept_until_it_is_read(tmp_path):
    nodes = chain("Relu", "Relu", "Relu", "Relu")[:-1]
    nodes.append(("Add", ["t2", "t0"], ["y"], {}))
    assert peak(tmp_path, nodes, ["y"]) == [5, 5], "x, y, t0, t1, t2"


def test_a_view_takes_nothing_and_keeps_what_it_views(tmp_path):
    shape = helper.make_tensor("shape", TensorProto.INT64, [2], [-1, 50])
    back = helper.make_tensor("back", TensorProto.INT64, [2], [-1, 100])
    nodes = [
        ("Relu", ["x"], ["a"], {}),
        ("Reshape", ["a", "shape"], ["v"], {}),
        ("Relu", ["v"], ["b"], {}),
        ("Reshape", ["b", "back"], ["w"], {}),
        ("Relu", ["w"], ["y"], {}),
    ]
    assert peak(tmp_path, nodes, ["y"], [shape, back]) == [4, 4], "x, y, a, b"


def test_a_tensor_that_nobody_reads_is_freed_at_once(tmp_path):
    nodes = [("Relu", ["x"], ["unread"], {}), *chain("Relu", "Relu")]
    assert peak(tmp_path, nodes, ["y"]) == [3, 3]


def test_weights_are_not_activations(tmp_path):
    weight = helper.make_tensor("w", TensorProto.FLOAT, [100, 100], [0.0] * 10_000)
    assert peak(tmp_path, [("MatMul", ["x", "w"], ["y"], {})], ["y"], [weight]) == [2, 2]


def test_the_peak_of_a_real_graph_grows_with_its_size(bundles):
    path, sizes = bundles("sd1", "onnxruntime").folder("vae_decoder") / "engine.onnx", ((1, 64), (1, 128), (2, 128))
    small, one, two = (peak_bytes(graph_costs(path, {"latent_sample": (b, 4, s // 8, s // 8)})) for b, s in sizes)
    assert one / small == pytest.approx(4, rel=0.01)
    assert two / one == pytest.approx(2, rel=0.01)
    assert one >= 128 * 128 * 32 * 4 * 2, "two tensors of the last block's 32 channels, at least"
