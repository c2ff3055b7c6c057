"""TensorRT's files become a plan: what they say is kept, what they do not say is not known."""

from __future__ import annotations

import json
from math import prod

import pytest
from trt_dump import RUNS, onnx_names, write

from sdtrt import readers
from sdtrt.analysis.load import load
from sdtrt.errors import PlanError

VERSIONS = ("8", "10", "11")


@pytest.fixture
def graph(tmp_path):
    """A graph file with the given layers, read."""

    def read(*layers, root=None, **files):
        for key, data in files.items():
            (tmp_path / f"x.{key.replace('_', '.')}.json").write_text(json.dumps(data))
        path = tmp_path / "x.graph.json"
        path.write_text(json.dumps({"Layers": layers} if root is None else root))
        return load(path).plans[0]

    return read


def tensor(name, *dims, dtype="Half"):
    return {"Name": name, "Dimensions": list(dims), "Format/Datatype": dtype}


def conv(**more):
    return {
        "Name": "c",
        "LayerType": "CaskConvolution",
        "ParameterType": "Convolution",
        "Inputs": [tensor("x", 2, 8, 16, 16)],
        "Outputs": [tensor("y", 2, 4, 16, 16)],
        "Kernel": [3, 3],
        "Groups": 2,
        "OutMaps": 4,
        "Weights": {"Type": "Half", "Count": 144},
        "Bias": {"Type": "Float", "Count": 4},
        "TacticName": "sm80_xmma",
        "StreamId": 1,
        **more,
    }


def test_every_reader_keeps_the_contract():
    assert readers.names() == ("onnxruntime", "plan", "tensorrt")
    for name in readers.names():
        assert callable(readers.load(name).sniff)
        assert callable(readers.load(name).read)


@pytest.mark.parametrize("version", VERSIONS)
def test_all_files_of_an_engine_are_used(tmp_path, version):
    dump = write(tmp_path, version)
    plan = load(dump.graph).plans[0]
    raw = json.loads(dump.graph.read_text())["Layers"]
    assert (plan.component, plan.backend, plan.runs, plan.notes) == ("unet", "tensorrt", RUNS, ())
    assert [x.name for x in plan.layers] == [x["Name"] for x in raw]
    assert {n for x in plan.layers for n in x.nodes} == onnx_names(raw)
    assert plan.shapes == {"sample": (2, 4, 16, 16), "timestep": (1,), "encoder_hidden_states": (2, 8, 32)}
    assert [t.name for t in plan.inputs] == list(plan.shapes)
    shape = (None, 4, None, None) if version == "11" else (2, 4, 16, 16)  # of Myelin's it is not told
    assert [(t.name, t.shape, t.dtype) for t in plan.outputs] == [("out_sample", shape, "float16")]
    assert len(plan.wall_times_ms) == RUNS
    assert set(plan.metadata) == {"device", "performance", "inference", "build", "model"}
    assert plan.device.startswith("NVIDIA")
    records = json.loads(dump.profile.read_text())[1:]
    assert [x.time_ms for x in plan.layers] == [r["medianMs"] for r in records]
    assert sum(x.timing.percentage for x in plan.layers) == pytest.approx(100)


def test_a_list_as_root_and_any_file_names_will_do(tmp_path):
    dump = write(tmp_path / "made", "10")
    other = tmp_path / "other"
    other.mkdir()
    (other / "unet-exportLayerInfo.json").write_text(json.dumps(json.loads(dump.graph.read_text())["Layers"]))
    (other / "unet-exportProfile.json").write_bytes(dump.profile.read_bytes())
    (other / "times.json").write_bytes(dump.timing.read_bytes())
    plan = load(other).plans[0]
    known = load(dump.graph).plans[0]
    assert (plan.component, plan.layers, plan.wall_times_ms) == ("unet", known.layers, known.wall_times_ms)


def test_a_layer_keeps_what_tensorrt_wrote(graph):
    layer = graph(conv(TacticValue="0x1", Metadata="[ONNX Layer: /a/b/Conv]", Novel={"k": [1, {"d": 2}]})).layers[0]
    assert (layer.op, layer.kernel, layer.stream, layer.precision) == ("CaskConvolution", "sm80_xmma", 1, "float16")
    assert (layer.nodes, layer.module) == (("/a/b/Conv",), "a.b")
    assert layer.attributes["Kernel"] == [3, 3]
    assert layer.attributes["Novel"] == {"k": [1, {"d": 2}]}
    assert layer.attributes["TacticValue"] == "0x1"
    assert not {"Name", "LayerType", "Inputs", "Outputs"} & set(layer.attributes)


def test_a_convolution_has_its_work_without_an_onnx_file(graph):
    layer = graph(conv()).layers[0]
    assert layer.flops == 2 * (2 * 4 * 16 * 16) * (8 // 2) * 9
    assert layer.weight_bytes == 144 * 2 + 4 * 4
    assert layer.bytes_moved == 2 * 8 * 256 * 2 + 2 * 4 * 256 * 2 + layer.weight_bytes


def test_a_deconvolution_works_for_each_input_element(graph):
    outputs = [tensor("y", 2, 4, 32, 32)]
    layer = graph(conv(LayerType="CaskDeconvolutionV2", Outputs=outputs)).layers[0]
    assert layer.flops == 2 * (2 * 8 * 16 * 16) * (4 // 2) * 9


@pytest.mark.parametrize(
    "change",
    [
        {"Inputs": [tensor("x", -1, 8, 16, 16)]},
        {"Kernel": [3]},
        {"Kernel": "3x3"},
        {"Kernel": [3, -3]},
        {"Groups": 0},
        {"Groups": "1"},
        {"Outputs": []},
        {"Inputs": [tensor("x", 8, 16, 16)]},
    ],
)
def test_a_convolution_of_unknown_size_has_unknown_work(graph, change):
    assert graph(conv(**change)).layers[0].flops is None


@pytest.mark.parametrize(
    "weights", [{"Type": "Weird", "Count": 3}, {"Type": "Half"}, {"Count": -1, "Type": "Half"}, "big", None]
)
def test_weights_that_cannot_be_counted_are_unknown_and_noted(graph, weights):
    plan = graph(conv(Weights=weights))
    assert (plan.layers[0].weight_bytes, plan.total_weight_bytes) == (None, None)
    assert "Weights without a known Type and Count" in plan.notes[0]


def test_constants_of_tensorrt_11_are_weights(graph):
    gemm = {"Name": "g", "LayerType": "gemm", "Inputs": [], "Outputs": [], "TacticName": "t"}
    constants = [{"Name": "w", "Dimensions": [4, 8], "Datatype": "BFloat16"}]
    assert graph({**gemm, "Constants": constants}).layers[0].weight_bytes == 64
    assert graph({**gemm, "Constants": []}).layers[0].weight_bytes is None


def test_a_tensor_that_is_read_twice_counts_once(graph):
    twice = [tensor("x", 4), tensor("x", 4)]
    layer = graph({"Name": "a", "LayerType": "CudaSoftMax", "Inputs": twice, "Outputs": [tensor("y", 4)]}).layers[0]
    assert (layer.io_bytes, layer.bytes_moved) == (16, 16)


def test_what_only_renames_moves_nothing_and_a_copy_moves_its_tensors(graph):
    sides = {"Inputs": [tensor("x", 4)], "Outputs": [tensor("y", 4, dtype="Float")]}
    no_op, reformat = graph(
        {"Name": "a", "LayerType": "NoOp", **sides}, {"Name": "b", "LayerType": "Reformat", **sides}
    ).layers
    assert (no_op.kind, no_op.bytes_moved, no_op.flops) == ("shape", 0, 0)
    assert (reformat.kind, reformat.bytes_moved, reformat.flops) == ("reformat", 24, 0)


def test_a_copy_belongs_to_the_module_of_the_layer_it_works_for(tmp_path):
    plan = load(write(tmp_path, "10").graph).plans[0]
    copies = [x for x in plan.layers if x.name.startswith("Reformatting")]
    by_name = {x.name: x for x in plan.layers}
    assert len(copies) > 5
    for copy in copies:
        assert copy.module == by_name[copy.name.partition(" to ")[2]].module


def test_names_alone_say_how_to_rebuild(graph):
    profile = [{"count": 5}, {"name": "b", "averageMs": 2.0}]
    plan = graph("a", "b", profile=profile)
    assert [(x.name, x.kind, x.time_ms) for x in plan.layers] == [("a", "other", None), ("b", "other", 2.0)]
    assert "2 layers have names only: build with --profilingVerbosity=detailed" in plan.notes[0]


def test_streams_and_waits_are_layers_too(graph):
    layers = [{"Name": n, "LayerType": n, "Inputs": [], "Outputs": []} for n in ("signal", "wait", "signal", "wait")]
    assert [x.kind for x in graph(*layers).layers] == ["other"] * 4


@pytest.mark.parametrize("root", [{"Layers": None}, {"Layers": 3}, {"Layers": {"a": 1}}, {"Layers": [3]}, {}, 5, "x"])
def test_a_graph_without_layers_names_file_and_field(graph, root):
    with pytest.raises(PlanError) as caught:
        graph(root=root)
    assert caught.value.slug in ("plan-field", "plan-unknown")
    assert "x.graph.json" in str(caught.value)


def test_an_engine_may_have_no_layers_at_all(graph):
    plan = graph()
    assert (plan.layers, plan.total_weight_bytes) == ((), 0)


def test_times_without_layers_are_an_error_that_says_what_to_export(tmp_path):
    path = tmp_path / "x.profile.json"
    path.write_text('[{"count": 1}, {"name": "a", "averageMs": 1}]')
    with pytest.raises(PlanError) as caught:
        load(path)
    assert caught.value.slug == "plan-graph-missing"


@pytest.mark.parametrize(
    ("field", "value"), [("TacticName", 3), ("LayerType", None), ("Inputs", 7), ("ParameterType", [1])]
)
def test_a_field_of_a_wrong_type_is_noted(graph, field, value):
    plan = graph(conv(**{field: value}))
    assert len(plan.layers) == 1
    assert field in plan.notes[0]


# Real engines, where TREx's figures are right: bytes of activations and weights, MACs, times, in their order.
RESNETS = (("fp16", "resnet"), ("fp32", "resnet"), ("qat", "resnet-qat"))
SIZES = {"Int8": 1, "FP16": 2, "FP32": 4, "Half": 2, "Float": 4}


def size_of(raw):
    return prod(raw["Dimensions"]) * next(size for word, size in SIZES.items() if word in raw["Format/Datatype"])


@pytest.mark.parametrize(("folder", "name"), RESNETS)
def test_a_real_engine_has_trex_figures(engine_dumps, folder, name):
    plan = load(engine_dumps / "trt8-resnet18-a100" / folder).plans[0]
    stem = engine_dumps / "trt8-resnet18-a100" / folder / f"{name}.onnx.engine"
    raw = json.loads(stem.with_name(f"{stem.name}.graph.json").read_text())["Layers"]
    times = json.loads(stem.with_name(f"{stem.name}.profile.json").read_text())[1:]
    assert (plan.component, plan.device, plan.notes) == (name, "NVIDIA A100 80GB PCIe", ())
    assert plan.shapes == {"input.1": (32, 3, 224, 224)}
    assert [x.io_bytes for x in plan.layers] == [sum(map(size_of, x["Inputs"] + x["Outputs"])) for x in raw]
    assert [x.time_ms for x in plan.layers] == [t["medianMs"] for t in times]
    assert sum(x.timing.mean_ms for x in plan.layers) == pytest.approx(sum(t["averageMs"] for t in times))
    convolutions = [(x, r) for x, r in zip(plan.layers, raw, strict=True) if r.get("ParameterType") == "Convolution"]
    assert len(convolutions) == 21
    for layer, r in convolutions:
        (n, k, p, q), c = r["Outputs"][0]["Dimensions"], r["Inputs"][0]["Dimensions"][1]
        weights, bias = r["Weights"], r["Bias"]
        assert layer.flops == 2 * n * k * p * q * c * prod(r["Kernel"]) // r["Groups"]
        assert layer.weight_bytes == weights["Count"] * SIZES[weights["Type"]] + bias["Count"] * SIZES[bias["Type"]]
    assert sum(x.flops for x, _ in convolutions) == pytest.approx(116e9, rel=0.01)  # 1.81 GMACs x 32 images x 2


def test_a_real_engine_of_tensorrt_10_names_its_nodes(engine_dumps):
    plan = load(engine_dumps / "trt10.16-mnist" / "mnist.onnx.engine.graph.json").plans[0]
    assert [x.nodes for x in plan.layers][:3] == [
        ("node_conv2d", "node_relu"),
        ("node_max_pool2d",),
        ("node_conv2d_1", "node_relu_1"),
    ]
    assert [x.kind for x in plan.layers] == [
        "conv",
        "pointwise",
        "conv",
        "pointwise",
        "gemm",
        "pointwise",
        "norm",
        "pointwise",
        "reformat",
    ]
    assert [t.name for t in plan.outputs] == ["y", "z"]
    assert {x.precision for x in plan.layers} == {"float32", "int32"}
