"""With its ONNX file, an engine of any TensorRT version has all of the graph's work, and no more."""

from __future__ import annotations

import json

import onnx
import pytest
from trt_dump import write

from sdtrt.analysis.load import load
from sdtrt.costs import graph_costs
from sdtrt.errors import ConfigError, GraphError

VERSIONS = ("8", "10", "11")
BLOCK = "down_blocks.0.attentions.0.transformer_blocks.0"


@pytest.fixture(scope="module", params=VERSIONS)
def joined(request, tmp_path_factory):
    dump = write(tmp_path_factory.mktemp(f"trt{request.param}"), request.param)
    return dump, load(dump.graph, onnx=dump.onnx).plans[0]


def test_sums_over_layers_are_those_of_the_graph(joined):
    dump, plan = joined
    nodes = graph_costs(dump.onnx, plan.shapes).nodes.values()
    assert sum(x.flops or 0 for x in plan.layers) == sum(n.flops for n in nodes) == plan.total_flops > 10**8
    assert (
        sum(x.weight_bytes or 0 for x in plan.layers) == sum(n.weight_bytes for n in nodes) == plan.total_weight_bytes
    )


def test_every_layer_moves_a_known_number_of_bytes(joined):
    _, plan = joined
    assert all(x.bytes_moved is not None and x.bytes_moved >= 0 for x in plan.layers)


def test_dynamic_sizes_are_those_of_the_run(joined):
    _, plan = joined
    assert [t.shape for t in (*plan.inputs, *plan.outputs)] == [(2, 4, 16, 16), (1,), (2, 8, 32), (2, 4, 16, 16)]
    border = [t for x in plan.layers for t in (*x.inputs, *x.outputs) if not t.name.startswith("__myln")]
    assert [t.name for t in border if t.shape is None or None in t.shape] == []


def test_time_is_kept_and_nothing_is_left_over(joined):
    dump, plan = joined
    assert sum(x.time_ms for x in plan.layers) > 0
    assert not any("in no layer" in note or "not in the graph" in note for note in plan.notes)
    assert plan.layers[0].timing == load(dump.graph).plans[0].layers[0].timing


def test_a_region_in_one_piece_takes_the_nodes_between_its_ends(tmp_path):
    dump = write(tmp_path, "8")
    plan = load(dump.graph, onnx=dump.onnx).plans[0]
    regions = [x for x in plan.layers if x.op == "Myelin"]
    whole = next(x for x in regions if "attn1/to_q" in "".join(x.nodes))
    assert (whole.kind, whole.module.startswith(BLOCK)) == ("attention", True)  # as its heaviest node
    assert whole.flops > 10**7
    assert plan.notes == (f"{len(regions)} layers have no metadata; their ONNX nodes were taken from their names",)


def test_layers_without_metadata_are_known_by_their_names(tmp_path):
    dump = write(tmp_path, "8")
    raw = json.loads(dump.graph.read_text())
    for layer in raw["Layers"]:
        del layer["Metadata"]
    dump.graph.write_text(json.dumps(raw))
    plan = load(dump.graph, onnx=dump.onnx).plans[0]
    fused = next(x for x in plan.layers if x.name == "/conv_in/Conv + /conv_in/Relu")
    assert (fused.nodes, fused.module) == (("/conv_in/Conv", "/conv_in/Relu"), "conv_in")
    assert sum(x.flops or 0 for x in plan.layers) == plan.total_flops


def test_kinds_modules_and_sizes_of_fused_layers_are_right(tmp_path):
    dump = write(tmp_path, "10")
    layers = load(dump.graph, onnx=dump.onnx).plans[0].layers
    attention = next(x for x in layers if x.name.startswith("_gemm_mha_v2"))
    assert (attention.kind, attention.module) == ("attention", f"{BLOCK}.attn1")
    query = next(x for x in layers if "attn1/to_q" in x.name)
    assert (query.kind, query.module, query.precision) == ("gemm", f"{BLOCK}.attn1.to_q", "float16")
    assert query.outputs[0].shape == (2, 256, 32)
    assert query.flops == 2 * 2 * 256 * 32 * 32
    assert query.weight_bytes == 32 * 32 * 2


def test_the_softmax_of_two_kernels_is_shared_between_them(tmp_path):
    dump = write(tmp_path, "10")
    plan = load(dump.graph, onnx=dump.onnx).plans[0]
    node = next(n for n in plan.nodes if n.name.endswith("attn2/Softmax"))
    halves = [x for x in plan.layers if node.name in x.nodes]
    assert len(halves) == 2
    assert node.flops <= sum(x.flops for x in halves)


def test_an_input_without_a_size_is_asked_for(tmp_path):
    dump = write(tmp_path, "10")
    dump.profile_metadata.unlink()
    with pytest.raises(GraphError) as caught:
        load(dump.graph, onnx=dump.onnx)
    assert caught.value.slug == "input-shape"
    shapes = {"sample": (2, 4, 16, 16), "timestep": (1,), "encoder_hidden_states": (2, 8, 32)}
    plan = load(dump.graph, onnx=dump.onnx, shapes=shapes).plans[0]
    assert (plan.shapes, sum(x.flops or 0 for x in plan.layers)) == (shapes, plan.total_flops)


def test_another_graph_is_noted(tmp_path):
    dump = write(tmp_path, "10")
    model = onnx.load(dump.onnx)
    for node in model.graph.node:
        node.name = node.name.replace("attn1", "attention_one")
    onnx.save(model, dump.onnx)
    notes = load(dump.graph, onnx=dump.onnx).plans[0].notes
    assert any("are in no layer" in n for n in notes)
    assert any("are not in the graph" in n for n in notes)


def test_the_graph_of_another_network_is_refused(tmp_path):
    dump = write(tmp_path, "10")
    model = onnx.load(dump.onnx)
    for node in model.graph.node:
        node.name = f"/other{node.name}"
    onnx.save(model, dump.onnx)
    with pytest.raises(GraphError) as caught:
        load(dump.graph, onnx=dump.onnx)
    assert caught.value.slug == "onnx-foreign", "its totals would be those of that network"


def test_sizes_against_those_of_the_run_are_noted(tmp_path):
    dump = write(tmp_path, "10")
    plan = load(dump.graph, onnx=dump.onnx, shapes={"sample": (2, 4, 32, 32)}).plans[0]
    assert "sample is priced at 2x4x32x32, but the engine's files say 2x4x16x16" in plan.notes


def test_a_name_that_nothing_has_is_an_error(tmp_path):
    dump = write(tmp_path, "10")
    wrong = {
        "unknown-name": {"onnx": {"vae": dump.onnx}},
        "unknown-name ": {"onnx": dump.onnx, "shapes": {"smaple": (2, 4, 16, 16)}},
        "shapes-onnx": {"shapes": {"sample": (2, 4, 16, 16)}},
    }
    for slug, given in wrong.items():
        with pytest.raises(ConfigError) as caught:
            load(dump.graph, **given)
        assert caught.value.slug == slug.strip()
