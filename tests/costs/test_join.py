"""The join: sums over layers equal sums over nodes, and a fusion pays for what crosses its border."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper, save

from sdtrt.costs import GraphCosts, graph_costs, join
from sdtrt.errors import GraphError
from sdtrt.plan.layers import KINDS, Layer, NodeCost, Plan, TensorInfo


def plan(*layers):
    return Plan(component="unet", backend="fake", backend_version="1", device="none", precision="fp16", layers=layers)


def cost(name, flops=0, weight_bytes=0, kind="conv"):
    return NodeCost(
        name=name, op="Conv", kind=kind, module=f"m.{name}", flops=flops, bytes_moved=8, weight_bytes=weight_bytes
    )


def costs_of(*nodes):
    names = {n.name: n for n in nodes}
    return GraphCosts(names, {}, dict.fromkeys(names, ()), dict.fromkeys(names, ()), frozenset())


@given(
    st.lists(st.tuples(st.sampled_from(KINDS), st.sets(st.integers(0, 9), max_size=5)), min_size=1, max_size=8),
    st.lists(st.tuples(st.integers(0, 10**9), st.integers(0, 10**9), st.sampled_from(KINDS)), min_size=10, max_size=10),
)
def test_sums_over_layers_are_sums_over_nodes_to_the_last_integer(groups, figures):
    nodes = [cost(f"n{i}", *f) for i, f in enumerate(figures)]
    layers = [Layer(name=str(i), kind=k, op="?", nodes=tuple(f"n{n}" for n in g)) for i, (k, g) in enumerate(groups)]
    joined = join(plan(*layers), costs_of(*nodes))
    named = set().union(*(g for _, g in groups))
    assert sum(x.flops or 0 for x in joined.layers) == sum(nodes[n].flops for n in named)
    assert sum(x.weight_bytes or 0 for x in joined.layers) == sum(nodes[n].weight_bytes for n in named)
    assert joined.total_flops == sum(n.flops for n in nodes)


def test_the_layer_of_the_node_s_kind_pays_for_it():
    layers = (
        Layer(name="gemm", kind="gemm", op="gemm", nodes=("a",)),
        Layer(name="k", kind="norm", op="k", nodes=("a",)),
    )
    joined = join(plan(*layers), costs_of(cost("a", 10, 7, "gemm")))
    assert [(x.flops, x.weight_bytes) for x in joined.layers] == [(10, 7), (0, 0)]


def test_an_opaque_layer_takes_kind_and_module_of_its_heaviest_node():
    opaque = Layer(name="{ForeignNode[a...b]}", kind="other", op="Myelin", nodes=("a", "b"))
    (joined,) = join(plan(opaque), costs_of(cost("a", 5, kind="norm"), cost("b", 50, kind="gemm"))).layers
    assert (joined.kind, joined.module) == ("gemm", "m.b")


def test_what_could_not_be_joined_is_said():
    joined = join(plan(Layer(name="x", kind="conv", op="?", nodes=("ghost",))), costs_of(cost("a", 2_000_000_000)))
    assert joined.layers[0].flops is None
    assert any("2 GFLOP are in no layer, such as a" in note for note in joined.notes)
    assert any("not in the graph, such as ghost" in note for note in joined.notes)


@pytest.fixture
def chain(tmp_path):
    """x -> Conv -> y -> Sigmoid -> z -> Mul(y, z) -> out, float16, batch symbolic."""
    weight = numpy_helper.from_array(np.zeros((4, 4, 1, 1), np.float16), "w")
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["y"], name="/block/conv/Conv"),
        helper.make_node("Sigmoid", ["y"], ["z"], name="/block/act/Sigmoid"),
        helper.make_node("Mul", ["y", "z"], ["out"], name="/block/act/Mul"),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT16, ["B", 4, 8, 8])
    out = helper.make_tensor_value_info("out", TensorProto.FLOAT16, ["B", 4, 8, 8])
    path = tmp_path / "chain.onnx"
    save(helper.make_model(helper.make_graph(nodes, "g", [x], [out], [weight])), path)
    return path


def test_a_fusion_moves_what_crosses_its_border(chain):
    costs = graph_costs(chain, {"x": (2, 4, 8, 8)})
    fused = Layer(name="all", kind="conv", op="Conv", nodes=tuple(costs.nodes))
    alone = [Layer(name=n, kind=c.kind, op=c.op, nodes=(n,)) for n, c in costs.nodes.items()]
    tensor, weight = 2 * 4 * 8 * 8 * 2, 32
    assert join(plan(fused), costs).layers[0].bytes_moved == 2 * tensor + weight
    moved = [layer.bytes_moved for layer in join(plan(*alone), costs).layers]
    assert moved == [2 * tensor + weight, 2 * tensor, 3 * tensor]


def test_dynamic_dimensions_are_resolved_by_name(chain):
    costs = graph_costs(chain, {"x": (2, 4, 8, 8)})
    x = TensorInfo(name="x", shape=(None, 4, 8, 8), dtype="float16", format="row")
    other = TensorInfo(name="unknown", shape=(None, 4), dtype="float16")
    layer = Layer(name="a", kind="conv", op="Conv", inputs=(x, other), nodes=("/block/conv/Conv",))
    (joined,) = join(plan(layer), costs).layers
    assert joined.inputs[0].shape == (2, 4, 8, 8)
    assert joined.inputs[1].shape == (None, 4)
    assert joined.bytes_moved == 2 * 1024 + 32, "from the nodes: a tensor of the layer's own has no known size"


def test_attention_is_recognized_by_its_form(tmp_path):
    infos = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in (("q", [1, 8, 16]), ("k", [1, 16, 8]))]
    infos.append(helper.make_tensor_value_info("v", TensorProto.FLOAT, [1, 8, 16]))
    scale = numpy_helper.from_array(np.array(0.25, np.float32), "scale")
    w = numpy_helper.from_array(np.zeros((16, 16), np.float32), "w")
    nodes = [
        helper.make_node("MatMul", ["q", "k"], ["s"], name="qk"),
        helper.make_node("Mul", ["s", "scale"], ["t"], name="scaled"),
        helper.make_node("Softmax", ["t"], ["p"], name="softmax"),
        helper.make_node("MatMul", ["p", "v"], ["o"], name="pv"),
        helper.make_node("MatMul", ["o", "w"], ["out"], name="to_out"),
    ]
    out = helper.make_tensor_value_info("out", TensorProto.FLOAT, [1, 8, 16])
    save(helper.make_model(helper.make_graph(nodes, "g", infos, [out], [scale, w])), tmp_path / "a.onnx")
    kinds = {
        n: c.kind
        for n, c in graph_costs(tmp_path / "a.onnx", {"q": (1, 8, 16), "k": (1, 16, 8), "v": (1, 8, 16)}).nodes.items()
    }
    assert kinds == {**dict.fromkeys(("qk", "scaled", "softmax", "pv"), "attention"), "to_out": "gemm"}


def test_a_graph_of_others_is_priced_as_far_as_it_goes(tmp_path):
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 3])
    nodes = [
        helper.make_node("Relu", ["x"], ["a"]),
        helper.make_node("Magic", ["a"], ["b"], name="magic", domain="ours"),
        helper.make_node("Relu", ["b"], ["c"], name="after"),
    ]
    out = helper.make_tensor_value_info("c", TensorProto.FLOAT, [2, 3])
    save(helper.make_model(helper.make_graph(nodes, "g", [x], [out])), tmp_path / "m.onnx")
    with pytest.raises(GraphError):
        graph_costs(tmp_path / "m.onnx", {"x": (2, 3)})
    costs = graph_costs(tmp_path / "m.onnx", {"x": (2, 3)}, strict=False)
    assert {n: c.flops for n, c in costs.nodes.items()} == {"node_of_a": 6, "magic": None, "after": None}
    assert "2 ONNX nodes could not be priced" in costs.notes[0]
    assert join(plan(Layer(name="x", kind="other", op="?", nodes=("magic",))), costs).layers[0].flops is None


def test_a_file_that_is_no_onnx_is_named(tmp_path):
    (tmp_path / "x.onnx").write_bytes(b"\xff\xff not onnx")
    for path in (tmp_path / "x.onnx", tmp_path / "absent.onnx"):
        with pytest.raises(GraphError, match=path.name) as caught:
            graph_costs(path, {})
        assert caught.value.slug == "onnx-file"


def test_a_name_that_is_json_s_does_not_make_another_reader(tmp_path):
    (tmp_path / "x.graph.json").write_text('{"Layers": []}')
    (tmp_path / "empty.onnx").touch()
    for path in (tmp_path / "x.graph.json", tmp_path / "empty.onnx"):
        with pytest.raises(GraphError, match=path.name) as caught:
            graph_costs(path, {})
        assert caught.value.slug == "onnx-file"


def test_a_node_that_a_layer_names_twice_is_paid_once(chain):
    costs = graph_costs(chain, {"x": (2, 4, 8, 8)})
    name = next(n for n, c in costs.nodes.items() if c.flops)
    joined = join(plan(Layer(name="l", kind="other", op="?", nodes=(name, name))), costs)
    assert joined.layers[0].flops == costs.nodes[name].flops
