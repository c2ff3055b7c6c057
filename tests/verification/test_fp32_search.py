"""Islands of float32 in half precision graphs: the rewriting, and the search for what must be rewritten."""

import graph_in_half
import numpy as np
import onnx
import pytest
import torch

from sdtrt.graph import optimize, widen_fp32
from sdtrt.verification import fp32_search

X = np.linspace(-2, 3, 2 * graph_in_half.WIDTH, dtype=np.float16).reshape(2, -1)
INPUTS = [{"x": torch.from_numpy(X)}]


@pytest.fixture
def overflowing(tmp_path):
    return graph_in_half.overflowing(tmp_path / "model.onnx")


def expected():
    grown = X.astype(np.float64) * 0.5 * 30 * 60000
    centered = grown - grown.mean(1, keepdims=True)
    return centered / np.sqrt((centered**2).mean(1, keepdims=True)) * 0.5


def widen(path, *names):
    return widen_fp32.widen_file(path, lambda model: set(names))


def checked(path):
    model = onnx.load(path)
    onnx.checker.check_model(model)
    return onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)


GROWN = ("/grow/MatMul", "/grow/Mul", "/grow/Reshape", "/norm/LayerNormalization")


def test_the_overflow_is_real_and_an_island_mends_it(overflowing):
    assert not np.isfinite(graph_in_half.run(overflowing, X)[0]).all()
    change = widen(overflowing, *GROWN)
    np.testing.assert_allclose(graph_in_half.run(overflowing, X)[0], expected(), atol=2e-3)
    assert (change.name, change.changed) == ("widen_fp32", 4)


def test_an_island_is_typed_throughout_and_keeps_inputs_outputs_and_weights(overflowing):
    before = onnx.load(overflowing)
    widen(overflowing, *GROWN)
    after = checked(overflowing)
    assert [i.type for i in after.graph.input] == [i.type for i in before.graph.input]
    assert [o.type.tensor_type.elem_type for o in after.graph.output] == [onnx.TensorProto.FLOAT16]
    assert {t.name: t.data_type for t in after.graph.initializer} == {
        t.name: t.data_type for t in before.graph.initializer
    }
    # One cast for each half precision tensor that goes in: an activation, three weights; and one for what goes out.
    casts = [n for n in after.graph.node if n.op_type == "Cast"]
    assert sorted(n.input[0] for n in casts) == ["a", "e/float32", "gain", "grow.weight", "norm.weight"]
    assert {widen_fp32.unit_of(n.name) for n in casts} == {"grow", "norm"}


def test_an_island_that_ends_at_an_output(overflowing):
    widen(overflowing, "/last/Mul")
    assert [n.output[0] for n in checked(overflowing).graph.node][-1] == "y"


def test_a_cast_to_half_precision_inside_an_island_goes_to_float32(tmp_path):
    nodes = [
        ("/a/Cast", "Cast", ["x"], "f", {"to": onnx.TensorProto.FLOAT}),
        ("/b/Cast", "Cast", ["f"], "h", {"to": onnx.TensorProto.FLOAT16}),
        ("/b/Mul", "Mul", ["h", "one"], "y", {}),
    ]
    path = graph_in_half.make(tmp_path / "m.onnx", nodes, {"one": np.float16(1)})
    widen(path, "/b/Cast", "/b/Mul")
    checked(path)
    np.testing.assert_array_equal(graph_in_half.run(path, X)[0], X.astype(np.float32))


def test_islands_can_grow(overflowing):
    widen(overflowing, "/grow/MatMul", "/grow/Mul")
    widen(overflowing, *(n.name for n in onnx.load(overflowing).graph.node))
    checked(overflowing)
    np.testing.assert_allclose(graph_in_half.run(overflowing, X)[0], expected(), atol=2e-3)


def test_as_a_pass_it_widens_the_scores_of_attention(tmp_path):
    path = graph_in_half.attention(tmp_path / "m.onnx")
    before = graph_in_half.run(path, X)[0]
    (change,) = optimize.optimize(path, ["fp32_attention_scores"])
    types = {n.name: n.input[0].endswith("/float32") for n in checked(path).graph.node if n.op_type != "Cast"}
    assert [n for n, wide in types.items() if wide] == [
        f"/attn/sdpa/{op}" for op in ("MatMul", "Mul", "Add", "Softmax")
    ]
    assert change.changed == 4
    np.testing.assert_allclose(graph_in_half.run(path, X)[0], before, rtol=2e-3, atol=2e-3)


def test_modules_that_a_recipe_names_stay_float32(tmp_path):
    path = graph_in_half.chain(tmp_path / "m.onnx", 12)
    (change,) = optimize.optimize(path, [], ["m03", "m1*", "n"])
    wide = [n.name for n in checked(path).graph.node if n.op_type == "Mul" and n.input[0].endswith("/float32")]
    assert wide == ["/m03/Mul", "/m10/Mul", "/m11/Mul"]
    assert (change.changed, change.notes) == (3, ("asked for: m03, m1*, n",))


# ------------------------------------------------------------------------------------ the search


def test_magnitudes_are_those_of_float32(overflowing):
    largest = fp32_search.magnitudes(overflowing, [*INPUTS, {"x": torch.from_numpy(X[:1])}])
    assert largest["d"] == pytest.approx(3 * 0.5 * 30 * 60000, rel=1e-3)
    assert largest["a"] == pytest.approx(1.5)
    assert "shape" not in largest
    assert [p.name for p in overflowing.parent.iterdir()] == ["model.onnx"]


def test_what_overflows_is_found_without_trying(overflowing):
    tries = []

    def trial(nodes):
        tries.append(nodes)
        return 1e-4

    found = fp32_search.search(overflowing, INPUTS, trial, float("inf"), 0.05)
    assert tries == [found.nodes] == [{"/grow/Mul", "/grow/Reshape", "/norm/LayerNormalization"}]
    told = "\n".join(found.notes)
    assert "in float32: grow, norm" in told
    assert "NaN or Inf before, 0.0001 after" in told
    assert "2 tensors exceed 65504 in float32, up to 2.7e+06; first: /grow/Mul" in told


@pytest.mark.parametrize(
    "needed", [{"m05"}, {"m02", "m13"}, {"m00", "m01", "m15"}], ids=lambda needed: "-".join(sorted(needed))
)
def test_bisection_finds_the_modules_that_matter(tmp_path, needed):
    path = graph_in_half.chain(tmp_path / "m.onnx", 16)
    tries = []

    def trial(nodes):
        tries.append(nodes)
        return 0.01 if needed <= set(fp32_search.modules(nodes)) else 0.3

    found = fp32_search.search(path, INPUTS, trial, 0.3, 0.05)
    assert set(fp32_search.modules(found.nodes)) == needed
    assert found.after == 0.01
    assert len(tries) <= fp32_search.TRIES


def test_the_search_ends_with_what_it_has_when_tries_are_spent(tmp_path, monkeypatch):
    monkeypatch.setattr(fp32_search, "TRIES", 3)
    path = graph_in_half.chain(tmp_path / "m.onnx", 16)

    def trial(nodes):
        return 0.01 if "m05" in fp32_search.modules(nodes) else 0.3

    found = fp32_search.search(path, INPUTS, trial, 0.3, 0.05)
    assert trial(found.nodes) == found.after == 0.01
    assert 1 < len(fp32_search.modules(found.nodes)) < 16


def test_attention_is_tried_before_everything(tmp_path):
    path = graph_in_half.attention(tmp_path / "m.onnx")
    found = fp32_search.search(path, INPUTS, lambda nodes: 0.01 if "/attn/sdpa/Softmax" in nodes else 1.0, 1.0, 0.05)
    assert fp32_search.modules(found.nodes) == ["attn.sdpa"]


def test_nothing_helps(tmp_path):
    path = graph_in_half.chain(tmp_path / "m.onnx", 4)
    found = fp32_search.search(path, INPUTS, lambda nodes: 0.4, 0.3, 0.05)
    assert not found.nodes
    assert found.notes[0] == "no part in float32 helped"
    assert "everything in float32 was not enough: error 0.4" in found.notes
