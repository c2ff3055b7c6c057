"""Node costs: figures worked out by hand, brute-force counts, and torch's own FLOP counter on whole components."""

from __future__ import annotations

import itertools
from collections import Counter
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import shared_exports
import tiny_random
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from torch.utils.flop_counter import FlopCounterMode

from sdtrt import engines, models
from sdtrt.costs import graph_costs, join
from sdtrt.errors import GraphError
from sdtrt.export import onnx_export
from sdtrt.graph import optimize
from sdtrt.plan.layers import Layer, NodeCost, Plan
from sdtrt.plan.node_names import module_of
from sdtrt.plan.op_kinds import node_kind
from sdtrt.shapes.spec import ShapeProfile

HALF, FLOAT, INT64, BOOL, INT4 = (
    TensorProto.FLOAT16,
    TensorProto.FLOAT,
    TensorProto.INT64,
    TensorProto.BOOL,
    TensorProto.INT4,
)
PRODUCTS = ("Conv", "ConvTranspose", "MatMul", "Gemm", "MultiHeadAttention")
SIZES = {"B": 1, "H": 128, "W": 128, "T": 77}


def weight(name: str, shape: tuple[int, ...], dtype: int = HALF) -> onnx.TensorProto:
    """An initializer whose data does not exist: reading it would fail."""
    tensor = TensorProto(name=name, data_type=dtype, dims=shape, data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="absent.data")
    return tensor


def number(name: str, *values: int) -> onnx.TensorProto:
    return numpy_helper.from_array(np.array(values, dtype=np.int64), name)


def node(op: str, inputs: str, outputs: str, name: str | None = None, **attributes: Any) -> onnx.NodeProto:
    given_name = f"/{outputs.split()[0]}/{op}" if name is None else name
    return helper.make_node(op, inputs.split(), outputs.split(), given_name, **attributes)


def costs_of(
    folder: Path,
    nodes: list[onnx.NodeProto],
    inputs: dict[str, tuple[int, ...]],
    weights: tuple[onnx.TensorProto, ...] = (),
    dtype: int = HALF,
    opset: int = 21,
    value_info: tuple[onnx.ValueInfoProto, ...] = (),
) -> dict[str, NodeCost]:
    """Costs by operator, or by output when an operator occurs twice. Input dimensions are symbols in the file."""
    infos = [helper.make_tensor_value_info(n, dtype, [f"{n}{i}" for i in range(len(s))]) for n, s in inputs.items()]
    outputs = [onnx.ValueInfoProto(name=nodes[-1].output[0])]
    body = helper.make_graph(nodes, "g", infos, outputs, list(weights), value_info=list(value_info))
    path = folder / "model.onnx"
    onnx.save(helper.make_model(body, opset_imports=[helper.make_opsetid("", opset)]), path)
    return {c.name.split("/")[1]: c for c in graph_costs(path, inputs).nodes.values()}


def figures(cost: NodeCost) -> tuple[int, int, int]:
    return cost.flops, cost.bytes_moved, cost.weight_bytes


def test_conv_with_groups_and_bias(tmp_path: Path) -> None:
    conv = node("Conv", "x w b", "y", group=2, kernel_shape=[3, 3], pads=[1, 1, 1, 1])
    costs = costs_of(tmp_path, [conv], {"x": (2, 8, 6, 6)}, (weight("w", (4, 4, 3, 3)), weight("b", (4,))))
    # 2*4*6*6 = 288 outputs, each 4*9 multiply-adds and a bias; 1152 + 288 + 8 bytes in, 576 out
    assert figures(costs["y"]) == (288 * (2 * 36 + 1), 1152 + 288 + 8 + 576, 296)
    assert (costs["y"].op, costs["y"].kind, costs["y"].module) == ("Conv", "conv", "y")


def test_conv_transpose_counts_each_input_element(tmp_path: Path) -> None:
    conv = node("ConvTranspose", "x w", "y", strides=[2, 2])
    costs = costs_of(tmp_path, [conv], {"x": (1, 3, 4, 4)}, (weight("w", (3, 2, 2, 2), FLOAT),), dtype=FLOAT)
    assert figures(costs["y"]) == (2 * 48 * 8, 4 * (48 + 24 + 128), 96)


@pytest.mark.parametrize(
    ("left", "right", "flops"),
    [
        ((2, 3, 4, 5), (5, 6), 2 * 2 * 3 * 4 * 6 * 5),
        ((2, 1, 4, 5), (3, 5, 6), 2 * 2 * 3 * 4 * 6 * 5),
        ((5,), (5,), 10),
        ((4, 5), (5,), 40),
    ],
)
def test_matmul_batches(tmp_path: Path, left: tuple[int, ...], right: tuple[int, ...], flops: int) -> None:
    costs = costs_of(tmp_path, [node("MatMul", "a b", "y")], {"a": left, "b": right})
    assert costs["y"].flops == flops
    assert costs["y"].weight_bytes == 0


def test_gemm_transposed_with_c(tmp_path: Path) -> None:
    gemm = node("Gemm", "a w c", "y", transA=1, transB=1)
    costs = costs_of(tmp_path, [gemm], {"a": (5, 4)}, (weight("w", (6, 5)), weight("c", (6,))))
    assert figures(costs["y"]) == (24 * 10 + 24, 2 * (20 + 30 + 6 + 24), 72)
    assert costs["y"].kind == "gemm"


@pytest.mark.parametrize("dims", [4, 3])
def test_attention_operator(tmp_path: Path, dims: int) -> None:
    flat, heads = dims == 3, 2
    query, key = ((1, 8, 32), (1, 77, 32)) if flat else ((1, 2, 8, 16), (1, 2, 77, 16))
    attributes = {"q_num_heads": heads, "kv_num_heads": heads} if flat else {}
    attention = node("Attention", "q k v", "y", **attributes)
    costs = costs_of(tmp_path, [attention], {"q": query, "k": key, "v": key}, opset=23)
    assert costs["y"].flops == 4 * 1 * 2 * 8 * 77 * 16
    assert costs["y"].kind == "attention"


def test_shape_arithmetic_is_free_and_is_followed(tmp_path: Path) -> None:
    nodes = [
        node("Shape", "x", "batch", start=0, end=1),
        node("Shape", "x", "all"),
        node("Slice", "all one two", "rows"),
        node("Div", "rows two", "half"),
        node("Concat", "batch half minus", "target", axis=0),
        node("Reshape", "x target", "view"),
        node("MatMul", "view w", "y"),
    ]
    weights = (number("one", 1), number("two", 2), number("minus", -1), weight("w", (6, 5)))
    costs = costs_of(tmp_path, nodes, {"x": (2, 8, 3)}, weights)
    assert all(figures(c) == (0, 0, 0) for name, c in costs.items() if name != "y")
    assert costs["y"].flops == 2 * (2 * 4 * 5) * 6  # the view is (2, 4, 6)


def test_views_move_nothing_and_their_arguments_are_no_weights(tmp_path: Path) -> None:
    nodes = [node("Reshape", "x target", "view"), node("Identity", "view", "same"), node("Relu", "same", "y")]
    costs = costs_of(tmp_path, nodes, {"x": (2, 8, 3)}, (number("target", 0, -1),))
    assert [figures(c) for c in costs.values()] == [(0, 0, 0), (0, 0, 0), (48, 192, 0)]


def test_transpose_of_a_weight_is_folded_and_its_bytes_go_to_the_user(tmp_path: Path) -> None:
    nodes = [node("Transpose", "w", "t", perm=[1, 0]), node("MatMul", "x t", "y")]
    costs = costs_of(tmp_path, nodes, {"x": (4, 5)}, (weight("w", (6, 5)),))
    assert figures(costs["t"]) == (0, 0, 0)
    assert figures(costs["y"]) == (240, 2 * (20 + 30 + 24), 60)


def test_a_shared_weight_counts_once(tmp_path: Path) -> None:
    nodes = [node("Mul", "x w", "first"), node("Mul", "first w", "second")]
    costs = costs_of(tmp_path, nodes, {"x": (4, 5)}, (weight("w", (5,)),))
    assert [c.weight_bytes for c in costs.values()] == [10, 0]
    assert [c.bytes_moved for c in costs.values()] == [90, 90]


def test_every_type_at_its_own_size(tmp_path: Path) -> None:
    nodes = [
        node("Greater", "x x", "more"),
        node("Where", "more x zero", "kept"),
        node("Cast", "kept", "wide", to=FLOAT),
        node("DequantizeLinear", "packed scale", "loose"),
        node("Mul", "kept loose", "y"),
    ]
    weights = (weight("zero", (1,)), weight("packed", (9,), INT4), weight("scale", ()))
    costs = costs_of(tmp_path, nodes, {"x": (3, 9)}, weights)
    assert figures(costs["more"]) == (27, 54 + 27, 0)
    assert figures(costs["kept"]) == (27, 27 + 54 + 2 + 54, 2)
    assert figures(costs["wide"]) == (0, 54 + 108, 0)
    assert figures(costs["y"]) == (27, 54 + 18 + 54, 5 + 2)


def test_a_lookup_reads_the_rows_it_returns(tmp_path: Path) -> None:
    gather = node("Gather", "table ids", "y")
    costs = costs_of(tmp_path, [gather], {"ids": (2, 7)}, (weight("table", (1000, 8)),), dtype=INT64)
    assert figures(costs["y"]) == (0, 2 * (2 * 7 * 8 * 2) + 14 * 8, 16000)


def test_norms_and_pointwise_by_the_table(tmp_path: Path) -> None:
    nodes = [
        node("GroupNormalization", "x s b", "group", num_groups=2),
        node("Sigmoid", "group", "gate"),
        node("Softmax", "gate", "soft"),
        node("ReduceMean", "soft axes", "mean"),
        node("Add", "mean s", "y"),
    ]
    weights = (weight("s", (8,)), weight("b", (8,)), number("axes", -1))
    costs = costs_of(tmp_path, nodes, {"x": (2, 8, 5)}, weights)
    assert [c.flops for c in costs.values()] == [640, 320, 400, 80, 2 * 8 * 8]


def test_stale_shapes_in_the_file_are_ignored(tmp_path: Path) -> None:
    stale = helper.make_tensor_value_info("h", HALF, [1, 1, 1])
    nodes = [node("Relu", "x", "h"), node("Relu", "h", "y")]
    costs = costs_of(tmp_path, nodes, {"x": (2, 3, 4)}, value_info=(stale,))
    assert costs["y"].flops == 24


@pytest.mark.parametrize(
    ("broken", "slug", "named"),
    [
        (node("NonZero", "x", "y"), "shape-unknown", "/y/NonZero"),
        (node("Fancy", "x", "y"), "shape-unknown", "/y/Fancy"),
        (node("Einsum", "x", "y", equation="ab->a"), "cost-unknown", "/y/Einsum"),
        (node("Relu", "x", "y", name=""), "node-name", "name"),
    ],
)
def test_what_cannot_be_known_is_an_error(tmp_path: Path, broken: onnx.NodeProto, slug: str, named: str) -> None:
    with pytest.raises(GraphError, match=named) as caught:
        costs_of(tmp_path, [broken], {"x": (2, 3)})
    assert caught.value.slug == slug


@pytest.mark.parametrize("shapes", [{}, {"x": (2,)}, {"x": (2, 4)}])
def test_inputs_have_to_fit(tmp_path: Path, shapes: dict[str, tuple[int, ...]]) -> None:
    body = helper.make_graph(
        [node("Relu", "x", "y")],
        "g",
        [helper.make_tensor_value_info("x", HALF, ["n", 3])],
        [onnx.ValueInfoProto(name="y")],
    )
    onnx.save(helper.make_model(body), tmp_path / "model.onnx")
    with pytest.raises(GraphError, match="input x"):
        graph_costs(tmp_path / "model.onnx", shapes)


def test_an_input_of_fixed_size_need_not_be_given(tmp_path: Path) -> None:
    x, y = helper.make_tensor_value_info("x", HALF, [2, 3]), onnx.ValueInfoProto(name="y")
    body = helper.make_graph([node("Relu", "x", "y")], "g", [x], [y])
    onnx.save(helper.make_model(body), tmp_path / "model.onnx")
    assert [c.flops for c in graph_costs(tmp_path / "model.onnx", {}).nodes.values()] == [6]


def test_modules_and_kinds_from_names() -> None:
    assert module_of("/down_blocks.0/resnets.1/conv1/Conv") == "down_blocks.0.resnets.1.conv1"
    assert module_of("/mid_block/attn1/sdpa/MatMul_1") == "mid_block.attn1"
    assert module_of("/Shape_3") == "(top)"
    assert node_kind("/mid_block/attn1/sdpa/Softmax", "Softmax") == "attention"
    assert node_kind("/mid_block/attn1/sdpa/Transpose", "Transpose") == "reformat"
    assert node_kind("/mid_block/attn1/to_q/MatMul", "MatMul") == "gemm"


small = st.integers(1, 3)


@settings(deadline=None, max_examples=40)
@given(small, small, small, small, st.integers(3, 6), small, small, st.integers(0, 2), st.booleans())
def test_conv_against_counting(
    tmp_path_factory: pytest.TempPathFactory,
    batch: int,
    groups: int,
    cin: int,
    cout: int,
    side: int,
    kernel: int,
    stride: int,
    pad: int,
    biased: bool,
) -> None:
    count = 0
    starts = range(0, side + 2 * pad - kernel + 1, stride)
    for _image, _channel, _top, _left in itertools.product(range(batch), range(groups * cout), starts, starts):
        count += sum(2 for _tap in itertools.product(range(cin), range(kernel), range(kernel))) + biased
    conv = node("Conv", "x w b" if biased else "x w", "y", group=groups, strides=[stride] * 2, pads=[pad] * 4)
    weights = (weight("w", (groups * cout, cin, kernel, kernel)), weight("b", (groups * cout,)))
    shape = (batch, groups * cin, side, side)
    costs = costs_of(tmp_path_factory.getbasetemp(), [conv], {"x": shape}, weights[: 1 + biased])
    assert costs["y"].flops == count


class Multiplied:
    """A number that counts how often it is multiplied."""

    count = 0

    def __mul__(self, other: object) -> int:
        Multiplied.count += 1
        return 0


@settings(deadline=None, max_examples=40)
@given(st.lists(small, max_size=2), st.lists(st.booleans(), min_size=2, max_size=2), small, small, small)
def test_matmul_against_counting(
    tmp_path_factory: pytest.TempPathFactory, batch: list[int], broadcast: list[bool], m: int, n: int, k: int
) -> None:
    left = (*batch, m, k)
    right = (*(1 if b else d for b, d in zip(broadcast, batch, strict=False)), k, n)
    Multiplied.count = 0
    factors = [np.array([Multiplied() for _ in range(prod(s))], dtype=object).reshape(s) for s in (left, right)]
    np.matmul(*factors)
    costs = costs_of(tmp_path_factory.getbasetemp(), [node("MatMul", "a b", "y")], {"a": left, "b": right})
    assert costs["y"].flops == 2 * Multiplied.count


class Component:
    """One exported component of a tiny pipeline with its costs; the export is the one that its bundle is built from."""

    def __init__(self, folder: Path, family: str, name: str, out: Path) -> None:
        half = (family, name) in tiny_random.IN_HALF
        found = models.family_of(folder)
        self.spec = found.components(folder, "fp16" if half else "fp32")[name]
        self.module = self.spec.load(folder)
        text = tiny_random.STATIC if half else tiny_random.PROFILES[family]
        profile = ShapeProfile.parse(text).with_defaults(found.default_profile(folder))
        self.path = onnx_export.capture(self.spec, self.module, [profile], 20, out)
        optimize.optimize(self.path, engines.load("onnxruntime").passes)
        self.graph = graph_costs(self.path, {t.name: t.resolve(SIZES) for t in self.spec.inputs})
        self.costs = self.graph.nodes


TINY = [
    (family, name)
    for family in tiny_random.FAMILIES
    for name in ("text_encoder", "text_encoder_2", "unet", "vae_decoder", "vae_encoder")
    if family == "sdxl" or name != "text_encoder_2"
]


@pytest.fixture(scope="module", params=TINY, ids="-".join)
def tiny(
    request: pytest.FixtureRequest, models: dict[str, Path], cache: Path, tmp_path_factory: pytest.TempPathFactory
) -> Component:
    family, name = request.param
    with shared_exports.shared(cache / "exports"):
        return Component(models[family], family, name, tmp_path_factory.mktemp(f"{family}-{name}"))


@pytest.mark.slow
def test_products_agree_with_torch(tiny: Component) -> None:
    inputs = {
        t.name: torch.empty(t.resolve(SIZES), dtype=getattr(torch, t.dtype), device="meta") for t in tiny.spec.inputs
    }
    # On meta tensors attention is decomposed into products, which the counter sees.
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        tiny.module.to("meta")(**inputs)
    products = sum(c.flops for c in tiny.costs.values() if c.op in PRODUCTS)
    assert products == pytest.approx(counter.get_total_flops(), rel=0.01)


@pytest.mark.slow
def test_modules_exist_and_sums_are_totals(tiny: Component) -> None:
    flops: Counter[str] = Counter()
    for cost in tiny.costs.values():
        flops[cost.module] += cost.flops
    known = {name.removeprefix("inner").lstrip(".") for name, _ in tiny.module.named_modules()}
    assert set(flops) <= known | {"(top)"}
    layers = tuple(Layer(name=n, kind=c.kind, op=c.op, nodes=(n,)) for n, c in tiny.costs.items())
    plan = Plan(component="c", backend="b", backend_version="1", device="d", precision="fp16", sizes={}, layers=layers)
    plan = join(plan, tiny.graph)
    assert sum(flops.values()) == plan.total_flops == sum(layer.flops or 0 for layer in plan.layers)
    weights = onnx.load(tiny.path, load_external_data=False).graph.initializer
    stored = sum(prod(t.dims) * helper.tensor_dtype_to_np_dtype(t.data_type).itemsize for t in weights)
    assert plan.total_weight_bytes == pytest.approx(stored, rel=0.005)
    assert {c.kind for c in tiny.costs.values()} >= {"attention", "gemm", "norm", "pointwise"}
