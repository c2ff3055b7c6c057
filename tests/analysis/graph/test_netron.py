"""The ONNX model for Netron: structurally right, with everything that is known, for any plan."""

from __future__ import annotations

import onnx
import pytest

from sdtrt.analysis.graph.netron import DOMAIN, save_onnx, to_onnx
from sdtrt.plan.layers import DTYPE_BITS, Layer, Plan, TensorInfo


def layer(name, reads=(), writes=(), **more):
    inputs = tuple(TensorInfo(name=read, shape=(2, None), dtype="float16") for read in reads)
    outputs = tuple(TensorInfo(name=write, shape=(2, None), dtype="float16") for write in writes)
    return Layer(name=name, **{"kind": "conv", "op": "Conv", "inputs": inputs, "outputs": outputs, **more})


def plan(*layers, **more):
    about = {"component": "unet", "backend": "b", "backend_version": None, "device": None, "precision": None}
    return Plan(layers=layers, **{**about, **more})


def export(plan):
    model = to_onnx(plan)
    onnx.checker.check_model(model, full_check=True)
    return model.graph


def attributes(node):
    return {each.name: onnx.helper.get_attribute_value(each) for each in node.attribute}


def test_a_layer_is_a_node_with_all_that_is_known():
    known = {"kernel": "xmma", "precision": "float16", "module": "conv_in", "times_ms": (1.0, 2.0), "flops": 7}
    more = {"bytes_moved": 8, "nodes": ("a", "b"), "attributes": {"Stride": [1, 1], "Origin": "CAST", "Big": 1 << 70}}
    graph = export(plan(layer("conv", ["x"], ["y"], **known, **more)))
    (node,) = graph.node
    assert (node.domain, node.op_type, node.name) == (DOMAIN, "Conv", "conv")
    found = attributes(node)
    assert found["kernel"] == b"xmma"
    assert (found["time_ms"], found["flops"], found["bytes_moved"], found["nodes"]) == (1.5, 7, 8, [b"a", b"b"])
    assert (found["engine.Stride"], found["engine.Origin"]) == (b"[1, 1]", b"CAST")
    assert found["engine.Big"] == str(1 << 70).encode()
    assert "weight_bytes" not in found, "what is not known is left out"


def test_tensors_have_type_and_shape():
    graph = export(plan(layer("a", ["x"], ["m"]), layer("b", ["m"], ["y"])))
    ((x,), (m,), (y,)) = graph.input, graph.value_info, graph.output
    assert (x.name, m.name, y.name) == ("x", "m", "y")
    assert m.type.tensor_type.elem_type == onnx.TensorProto.FLOAT16
    assert [dim.dim_value for dim in m.type.tensor_type.shape.dim] == [2, 0]


@pytest.mark.parametrize("dtype", [*DTYPE_BITS, "something", None])
def test_every_type_that_a_plan_knows_has_one_in_onnx_or_none(dtype):
    tensor = TensorInfo(name="x", dtype=dtype)
    graph = export(plan(Layer(name="a", kind="conv", op="Conv", inputs=(tensor,))))
    undefined = graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.UNDEFINED
    assert undefined == (dtype in ("something", None))


def test_several_producers_get_names_of_their_own():
    graph = export(plan(layer("a", ["x"], ["m"]), layer("a", ["m"], ["m"]), layer("a", ["m"], ["y"])))
    assert [node.name for node in graph.node] == ["a", "a #2", "a #3"]
    assert [list(node.input) for node in graph.node] == [["x"], ["m"], ["m (2)"]]


def test_readers_come_after_their_producers():
    graph = export(plan(layer("reader", ["m"], ["y"]), layer("writer", ["x"], ["m"])))
    assert [node.name for node in graph.node] == ["writer", "reader"]


def test_what_a_loop_carries_back_is_an_input():
    graph = export(plan(layer("a", ["late", "x"], ["m"]), layer("b", ["m"], ["late", "y"])))
    assert [value.name for value in graph.input] == ["late (carried back)", "x"]
    assert [node.name for node in graph.node] == ["a", "b"]


def test_layers_without_tensors_are_a_chain():
    graph = export(plan(layer("a"), layer("b"), layer("c")))
    assert [list(node.input) for node in graph.node] == [[], ["(after 1)"], ["(after 2)"]]


def test_hostile_names_and_sizes_do_not_break_it():
    bad = "\x1e\ud800\x00</script>"
    tensors = tuple(TensorInfo(name=name, shape=(1 << 70, 3)) for name in (bad, "", bad.replace("\x1e", "\x1f")))
    hostile = {"kernel": bad, "nodes": (bad, ""), "attributes": {bad: {"a": [bad]}}}
    graph = export(plan(Layer(name=bad, kind="other", op="", inputs=tensors, **hostile), layer("", [""], [bad + "y"])))
    assert len(set(graph.node[0].input)) == 3, "names that look the same after cleaning stay apart"


def test_the_file_is_written_beside_and_renamed(tmp_path):
    path = save_onnx(plan(layer("a", ["x"], ["y"])), tmp_path / "unet.onnx")
    assert onnx.load(path).graph.node[0].op_type == "Conv"
    assert list(tmp_path.iterdir()) == [path]
