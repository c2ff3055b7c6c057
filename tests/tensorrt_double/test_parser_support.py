"""What we export is what the ONNX parser documents as supported, and attention has the form that TensorRT fuses.

The facts and their sources stand in the double (`double/tensorrt/_operators.py`), which refuses by the same table.
"""

from collections import Counter

import onnx
import pytest
import shared_exports
import tiny_random
from onnx import TensorProto, helper
from trt import bindings, parser_facts, use

from sdtrt import engines
from sdtrt import models as families
from sdtrt.export import onnx_export
from sdtrt.graph import optimize as passes
from sdtrt.shapes.spec import ShapeProfile

RELEASES = [(10, 12), (10, 16), (11, 0), (11, 4)]
FAMILIES = ("sd1", "sd2", "sdxl")
COMPONENTS = ("text_encoder", "text_encoder_2", "unet", "vae_decoder", "vae_encoder")


@pytest.fixture(scope="module")
def graphs(apis, cache, bundles):
    """{family/component: graph} after export and the backend's passes, with weights beside."""
    with use.tensorrt(bindings.NEWEST, cache):
        opened = {family: bundles(family, "tensorrt") for family in FAMILIES}
    return {
        f"{family}/{name}": onnx.load(opened[family].folder(name) / "model.onnx", load_external_data=False)
        for family in FAMILIES
        for name in opened[family].manifest.components
    }


@pytest.fixture(scope="module", params=tiny_random.IN_HALF, ids="-".join)
def half(request, cache, models, tmp_path_factory):
    """Graphs of fp16 builds: in strongly typed networks their types are what runs."""
    family, name = request.param
    spec = families.family_of(models[family]).components(models[family], "fp16")[name]
    profile = ShapeProfile.parse(tiny_random.STATIC)
    with shared_exports.shared(cache / "exports"):
        path = onnx_export.capture(
            spec, spec.load(models[family]), [profile], engines.load("tensorrt").opset, tmp_path_factory.mktemp("half")
        )
    passes.optimize(path, engines.load("tensorrt").passes)
    return onnx.load(path, load_external_data=False)


@pytest.fixture(params=[f"{f}/{c}" for f in FAMILIES for c in COMPONENTS if f == "sdxl" or c != "text_encoder_2"])
def graph(request, graphs):
    return graphs[request.param]


@pytest.mark.parametrize("release", RELEASES, ids=str)
def test_every_operator_type_and_opset_is_documented(graph, release):
    assert parser_facts.refusals(graph, release) == []


@pytest.mark.parametrize("release", RELEASES, ids=str)
def test_fp16_graphs_are_documented_too(half, release):
    assert parser_facts.refusals(half, release) == []


def test_fp16_attention_has_no_cast_inside(half):
    sites = parser_facts.attentions(half)
    assert sites
    assert [site for site in sites if site.problem] == []


def test_every_tensor_has_a_known_type(graph):
    """Otherwise the check above would pass over it."""
    types = parser_facts.types(graph)
    unknown = [n.name for n in graph.graph.node if n.input and types.get(n.input[0]) is None]
    assert unknown == []


def test_every_attention_can_be_fused(graph):
    sites = parser_facts.attentions(graph)
    softmaxes = sum(n.op_type in ("Softmax", "Attention") for n in graph.graph.node)
    assert len(sites) == softmaxes > 0
    assert [site for site in sites if site.problem] == []


def test_the_scale_stands_before_the_product(graph):
    assert {site.scale for site in parser_facts.attentions(graph)} == {"query and key"}


@pytest.mark.parametrize(("family", "sites"), [("sd1", 14), ("sd2", 8), ("sdxl", 10)])
def test_every_transformer_block_of_the_unet_has_its_two_attentions(graphs, family, sites):
    assert len(parser_facts.attentions(graphs[f"{family}/unet"])) == sites


def test_normalizations_are_single_operators(graphs):
    """Decomposed ones overflow in fp16: they must be operators that TensorRT computes in fp32."""
    for graph in graphs.values():
        kinds = Counter(n.op_type for n in graph.graph.node)
        assert not kinds["ReduceMean"]
        assert kinds["LayerNormalization"] + kinds["InstanceNormalization"] + kinds["GroupNormalization"] > 0


def test_weights_keep_the_names_of_their_parameters(graphs):
    """A LoRA or a refit finds a weight by the parameter's name."""
    for graph in graphs.values():
        outside = [t for t in graph.graph.initializer if t.data_location == TensorProto.EXTERNAL]
        large = [t.name for t in outside if t.data_type == TensorProto.FLOAT]  # a mask of booleans is no weight
        assert large
        assert [name for name in large if "." not in name] == []


# ------------------------------------------------------------------------------------ the checks can fail


def made(nodes, dtype=TensorProto.FLOAT, opset=20, head=8):
    names = dict.fromkeys(n for node in nodes for n in (*node.input, *node.output))
    values = [helper.make_tensor_value_info(n, dtype, [1, 4, 16, head]) for n in names]
    fed = [v for v in values if v.name not in {o for n in nodes for o in n.output}]
    graph = helper.make_graph(nodes, "g", fed, [values[-1]], value_info=values)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])


def node(kind, inputs, output, **attributes):
    return helper.make_node(kind, inputs, [output], name=f"/{kind}_{output}", **attributes)


@pytest.mark.parametrize(
    ("model", "release", "text"),
    [
        (made([node("Det", ["x"], "y")]), (11, 4), "No importer registered for op: Det"),
        (made([node("Attention", ["q", "k", "v"], "y")], opset=23), (10, 12), "opset 23"),
        (made([node("Attention", ["q", "k", "v"], "y")]), (10, 12), "op: Attention"),
        (made([node("Swish", ["x"], "y")]), (10, 16), "op: Swish"),
        (made([node("Sigmoid", ["x"], "y")], TensorProto.DOUBLE), (11, 4), "Sigmoid does not take DOUBLE"),
        (made([node("Softmax", ["x"], "y")], TensorProto.INT32), (11, 4), "Softmax does not take INT32"),
        (made([node("Relu", ["x"], "y")], opset=8), (11, 4), "opset 8"),
        (made([node("Resize", ["x", "", "s"], "y", mode=b"cubic")]), (11, 4), "mode cubic"),
        (made([node("Resize", ["x", "", "s"], "y", antialias=1)]), (11, 4), "antialias"),
    ],
)
def test_what_is_not_documented_is_found(model, release, text):
    assert any(text in line for line in parser_facts.refusals(model, release))


def attention(before=(), after=(), scale=True, head=8, inner=(), dtype=TensorProto.FLOAT16):
    query = [node("Mul", ["q", "s"], "q2"), node("Mul", ["k", "s"], "k2")] if scale else []
    product = node("MatMul", ["q2", "k2"] if scale else ["q", "k"], "p0")
    chain, tensor = [*before], "p0"
    for kind in inner:
        chain.append(node(kind, [tensor, "m"] if kind in ("Mul", "Add") else [tensor], f"{tensor}_"))
        tensor = f"{tensor}_"
    soft = node("Softmax", [tensor], "w")
    out = [node("Cast", ["w"], "w2", to=TensorProto.FLOAT16)] if after else []
    last = node("MatMul", ["w2" if after else "w", "v"], "y")
    return made([*query, product, *chain, soft, *out, last], dtype, head=head)


def test_the_form_that_torch_exports_is_accepted():
    (site,) = parser_facts.attentions(attention(inner=("Add",)))
    assert (site.problem, site.scale) == (None, "query and key")


@pytest.mark.parametrize(
    ("model", "problem"),
    [
        (attention(inner=("Cast",)), "a Cast stands between"),
        (attention(after=("Cast",)), "a Cast stands between"),
        (attention(head=512), "a head of 512"),
        (attention(head=12), "a head of 12"),
        (made([node("Softmax", ["x"], "y")]), "no product feeds it"),
    ],
)
def test_an_attention_that_cannot_be_fused_is_found(model, problem):
    (site,) = parser_facts.attentions(model)
    assert problem in site.problem


@pytest.mark.parametrize(
    ("model", "scale"),
    [(attention(scale=False, inner=("Mul",)), "scores"), (attention(scale=False), "none")],
)
def test_where_the_scale_stands_is_told(model, scale):
    (site,) = parser_facts.attentions(model)
    assert site.scale == scale
