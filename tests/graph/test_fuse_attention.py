"""An attention written out becomes one operator of ONNX Runtime, and nothing else does."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from sdtrt import engines
from sdtrt.costs import graph_costs
from sdtrt.engines.backends.onnxruntime.engine import FUSION
from sdtrt.graph import optimize

HEADS, SIZE, WIDTH = 2, 8, 16
SIZES = {"x": 8, "context": 5}
FACTOR = SIZE**-0.25


def attention(
    path,
    *,
    keys="one turn",
    exchanged=(0, 2, 1, 3),
    masked=False,
    shown=None,
    axis=-1,
    views="known",
    images="B",
    half=False,
    name="Softmax",
):
    """Write softmax(q k^T / sqrt(D)) v over (B, S, 16), and (B, L, 16) of keys, to `path`, in one of several forms."""
    node = helper.make_node
    split = ["B", "S", HEADS, SIZE]
    nodes = []
    for part, source in (("q", "x"), ("k", "context"), ("v", "context")):
        nodes.append(node("Reshape", [source, "split"], [f"{part}.view"], f"/attn/Reshape_{part}"))
        nodes.append(node("Transpose", [f"{part}.view"], [part], f"/attn/Transpose_{part}", perm=[0, 2, 1, 3]))
    nodes.append(node("Mul", ["q", "factor"], ["q.scaled"], "/attn/sdpa/Mul"))
    nodes += transposed(keys)
    nodes.append(node("Mul", ["factor", "k.turned"], ["k.scaled"], "/attn/sdpa/Mul_1"))
    nodes.append(node("MatMul", ["q.scaled", "k.scaled"], ["scores"], "/attn/sdpa/MatMul"))
    if masked:
        nodes.append(node("Add", ["scores", "mask"], ["masked"], "/attn/sdpa/Add"))
    nodes.append(node("Softmax", ["masked" if masked else "scores"], ["p"], f"/attn/sdpa/{name}", axis=axis))
    nodes.append(node("MatMul", ["p", "v"], ["heads"], "/attn/sdpa/MatMul_1"))
    nodes.append(node("Transpose", ["heads"], ["tokens"], "/attn/Transpose_o", perm=exchanged))
    nodes.append(node("Reshape", ["tokens", "join"], ["y"], "/attn/Reshape_o"))
    nodes.append(node("Mul", ["y", "factor"], ["z"], "/Mul"))
    number, dtype = (TensorProto.FLOAT16, np.float16) if half else (TensorProto.FLOAT, np.float32)
    constants = {"factor": dtype(FACTOR), "mask": np.zeros((1, 1), dtype)}
    constants |= {"split": np.array([0, 0, HEADS, SIZE]), "join": np.array([0, 0, -1])}
    numbers = {"minus": -1, "second": -3, "third": -2, "size": SIZE, "start": 0}
    constants |= {each: np.array([value]) for each, value in numbers.items()}
    info = helper.make_tensor_value_info
    inputs = [info("x", number, ["B", "S", WIDTH]), info("context", number, [images, "L", WIDTH])]
    outputs = [info("z", number, None)] + ([info(shown, number, None)] if shown else [])
    noted = [info("q.view", number, split), *(info(f"{n}.view", number, [images, "L", *split[2:]]) for n in "kv")]
    noted += [info("tokens", number, split)] * (views != "result unknown") + [info("y", number, ["B", "S", WIDTH])]
    if views == "unnamed":
        for size in (d for each in noted for d in each.type.tensor_type.shape.dim if d.dim_param):
            size.ClearField("dim_param")
    tensors = [numpy_helper.from_array(v, n) for n, v in constants.items()]
    made = helper.make_graph(nodes, "g", inputs, outputs, tensors, value_info=[] if views == "unknown" else noted)
    onnx.save(helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


def transposed(form):
    """Nodes from "k" (B, H, L, D) to "k.turned" (B, H, D, L)."""
    node = helper.make_node
    if form == "one turn":
        return [node("Transpose", ["k"], ["k.turned"], "/attn/sdpa/Transpose", perm=[0, 1, 3, 2])]
    if form == "wrong turn":
        return [node("Transpose", ["k"], ["k.turned"], "/attn/sdpa/Transpose", perm=[0, 1, 2, 3])]
    rows = "second" if form == "views of another axis" else "third"
    after = {"second": "third", "third": "minus"}[rows]
    return [
        node("Shape", ["k"], ["k.shape"], "/attn/sdpa/Shape"),
        node("Slice", ["k.shape", rows, after], ["rows"], "/attn/sdpa/Slice"),
        node("Slice", ["k.shape", "start", "third"], ["outer"], "/attn/sdpa/Slice_1"),
        node("Concat", ["minus", "rows", "size"], ["inner.shape"], "/attn/sdpa/Concat", axis=0),
        node("Concat", ["outer", "size", "minus"], ["outer.shape"], "/attn/sdpa/Concat_1", axis=0),
        node("Reshape", ["k", "inner.shape"], ["k.rows"], "/attn/sdpa/Reshape"),
        node("Transpose", ["k.rows"], ["k.columns"], "/attn/sdpa/Transpose", perm=[0, 2, 1]),
        node("Reshape", ["k.columns", "outer.shape"], ["k.turned"], "/attn/sdpa/Reshape_1"),
    ]


def results(path, dtype=np.float32):
    rng = np.random.default_rng(0)
    inputs = {name: rng.standard_normal((3, n, WIDTH), np.float32).astype(dtype) for name, n in SIZES.items()}
    return ort.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, inputs)


def operators(path):
    return [node.op_type for node in onnx.load(path).graph.node]


@pytest.mark.parametrize("keys", ["one turn", "views"])
@pytest.mark.parametrize("views", ["known", "tokens shown", "unnamed"])
def test_an_attention_becomes_one_operator_with_the_same_result(tmp_path, keys, views):
    shown = "tokens" if views == "tokens shown" else None
    path = attention(tmp_path / "m.onnx", keys=keys, shown=shown, views=views)
    before = results(path)
    (change,) = optimize.optimize(path, [FUSION])
    assert (change.changed, change.notes) == (1, ())
    assert not {"Softmax", "MatMul", "Transpose", "Shape"} & set(operators(path))
    for got, expected in zip(results(path), before, strict=True):
        np.testing.assert_allclose(got, expected, atol=1e-6)
    (fused,) = [n for n in onnx.load(path).graph.node if n.op_type == "MultiHeadAttention"]
    assert (fused.name, fused.domain) == ("/attn/sdpa/MultiHeadAttention", "com.microsoft")


OTHER_FORMS = {
    "a mask": ({"masked": True}, "comes from Add"),
    "a softmax over queries": ({"axis": 2}, "not a softmax over keys"),
    "another layout of the result": ({"exchanged": (0, 1, 2, 3)}, "laid out in another way"),
    "keys that are not turned": ({"keys": "wrong turn"}, "keys are laid out in another way"),
    "keys in views of another axis": ({"keys": "views of another axis"}, "keys are laid out in another way"),
    "shares that the graph gives out": ({"shown": "p"}, "p does not go to one MatMul alone"),
    "heads of unknown number": ({"views": "unknown"}, "is not a view of heads"),
    "a result of unknown shape": ({"views": "result unknown"}, "the shape of its result"),
    "axes in reverse": ({"exchanged": None}, "laid out in another way"),
    "one image's keys for all": ({"images": 1}, "a product broadcasts them"),
}


@pytest.mark.parametrize(("form", "why"), OTHER_FORMS.values(), ids=OTHER_FORMS)
def test_any_other_form_stays_and_the_pass_says_why(tmp_path, form, why):
    path = attention(tmp_path / "m.onnx", **form)
    before = path.read_bytes()
    (change,) = optimize.optimize(path, [FUSION])
    assert change.changed == 0
    assert operators(path) == [node.op_type for node in onnx.load_from_string(before).graph.node]
    (note,) = change.notes
    assert note.startswith("/attn/sdpa/Softmax: ")
    assert why in note


OTHER_USES = {
    "a mask of tokens": ([(2, 4, WIDTH), (2, 5, WIDTH), (2, 5, WIDTH), None, (2, 5)], ["y"], 2560),
    "all in one tensor": ([(2, 4, HEADS, 3, SIZE)], ["y"], None),
    "keys by heads": ([(2, 4, WIDTH), (2, HEADS, 5, SIZE), (2, HEADS, 5, SIZE)], ["y"], None),
    "keys that grow": ([(2, 4, WIDTH), (2, 5, WIDTH), (2, 5, WIDTH)], ["y", "keys", "values"], None),
}


@pytest.mark.parametrize(("shapes", "outputs", "flops"), OTHER_USES.values(), ids=OTHER_USES)
def test_other_uses_of_the_operator_are_priced_or_not_known(tmp_path, shapes, outputs, flops):
    names = [f"x{i}" if shape else "" for i, shape in enumerate(shapes)]
    given = {n: s for n, s in zip(names, shapes, strict=True) if s}
    info = helper.make_tensor_value_info
    inputs = [info(n, TensorProto.INT32 if len(s) == 2 else TensorProto.FLOAT, s) for n, s in given.items()]
    node = helper.make_node("MultiHeadAttention", names, outputs, "/attn", domain="com.microsoft", num_heads=HEADS)
    made = helper.make_graph([node], "g", inputs, [info("y", TensorProto.FLOAT, None)])
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)]
    onnx.save(helper.make_model(made, opset_imports=opsets), tmp_path / "m.onnx")
    costs = graph_costs(tmp_path / "m.onnx", given, strict=False)
    assert costs.nodes["/attn"].flops == flops
    assert bool(costs.notes) == (flops is None)


def test_what_is_said_of_another_exporters_graph_is_said_of_the_fused_one(tmp_path):
    sizes = {"x": (2, 4, WIDTH), "context": (2, 5, WIDTH)}
    path = attention(tmp_path / "m.onnx")
    products = [node for node in graph_costs(path, sizes).nodes.values() if node.op == "MatMul"]
    optimize.optimize(path, [FUSION])
    (whole,) = [node for node in graph_costs(path, sizes).nodes.values() if node.op == "MultiHeadAttention"]
    assert whole.flops == sum(node.flops for node in products) == 2 * 2 * 2 * HEADS * 4 * 5 * SIZE
    assert (whole.kind, whole.module) == ("attention", "attn")
    assert whole.bytes_moved == 4 * WIDTH * 2 * (4 + 5 + 4)  # keys and values are one tensor


def test_a_fused_attention_can_be_kept_in_float32(tmp_path):
    path = attention(tmp_path / "m.onnx", half=True)
    (expected,) = results(path, np.float16)
    optimize.optimize(path, [FUSION])
    np.testing.assert_allclose(results(path, np.float16)[0], expected, atol=2e-3)
    optimize.optimize(path, [], float32=["attn.sdpa"])
    assert operators(path) == ["Cast", "Cast", "MultiHeadAttention", "Cast", "Mul"]
    (got,) = results(path, np.float16)
    assert got.dtype == np.float16
    np.testing.assert_allclose(got, expected, atol=2e-3)


def test_a_second_attention_of_a_module_has_a_name_of_its_own(tmp_path):
    path = attention(tmp_path / "m.onnx", name="Softmax_1")
    optimize.optimize(path, [FUSION])
    assert "/attn/sdpa/MultiHeadAttention_1" in [node.name for node in onnx.load(path).graph.node]


@pytest.mark.parametrize(
    ("providers", "fused"),
    [
        (["CPUExecutionProvider"], True),
        (["CUDAExecutionProvider", "CPUExecutionProvider"], True),
        (["TensorrtExecutionProvider", "CUDAExecutionProvider"], False),
    ],
)
def test_a_provider_that_fuses_attention_itself_gets_it_written_out(providers, fused):
    backend = engines.load("onnxruntime")
    passes = backend.passes_for(backend.options(providers=providers))
    assert (FUSION in passes) == fused
    assert [p for p in passes if p != FUSION] == [p for p in backend.passes if p != FUSION]
