"""Every figure of TREx's that is right, computed here from the raw files by TREx's formulas, is the EnginePlan's."""

from __future__ import annotations

import inspect
import json
from math import prod
from pathlib import Path

import pytest
from locations import DUMPS

from sdtrt.analysis.trex import EnginePlan

ENGINES = {
    name: DUMPS / "trt8-resnet18-a100" / name / f"resnet{suffix}.onnx.engine"
    for name, suffix in (("fp32", ""), ("fp16", ""), ("qat", "-qat"))
}
# Bytes of an element and label of the precision, for each format that the dumps have.
FORMATS = {
    "Row major linear FP32": (4, "FP32"),
    "Row major linear FP16 format": (2, "FP16"),
    "Channel major FP32 format": (4, "FP32"),
    "Channel major FP32 format where channel % 4 == 0": (4, "FP32"),
    "Channel major FP16 format where channel % 4 == 0": (2, "FP16"),
    "Channel major FP16 format where channel % 8 == 0": (2, "FP16"),
    "Channel major FP16 format where channel % 16 == 0": (2, "FP16"),
    "Two wide channel vectorized row major FP16 format": (2, "FP16"),
    "Thirty-two wide channel vectorized row major FP16 format": (2, "FP16"),
    "Thirty-two wide channel vectorized row major Int8 format": (1, "INT8"),
    "Four wide channel vectorized row major Int8 format": (1, "INT8"),
}
WEIGHT_BYTES = {"Int8": 1, "Half": 2, "Float": 4}
ATTRIBUTES = {
    "attr.groups": "Groups",
    "attr.out_maps": "OutMaps",
    "attr.stride": "Stride",
    "attr.kernel": "Kernel",
    "attr.has_bias": "HasBias",
    "attr.activation": "Activation",
    "attr.has_relu": "HasReLU",
    "attr.dilation": "Dilation",
}


@pytest.fixture(params=ENGINES)
def engine(request) -> str:
    path = ENGINES[request.param]
    if not Path(f"{path}.graph.json").exists():
        pytest.skip("the sample dumps are not on this machine")
    return str(path)


@pytest.fixture
def plan(engine) -> EnginePlan:
    ends = ("graph.json", "profile.json", "profile.metadata.json", "build.metadata.json")
    return EnginePlan(*(f"{engine}.{end}" for end in ends))


@pytest.fixture
def raw(engine) -> list[dict]:
    layers = json.loads(Path(f"{engine}.graph.json").read_text(encoding="utf-8"))["Layers"]
    return [layer for layer in layers if layer["LayerType"] not in ("NoOp", "Constant")]


def size(tensor):
    return prod(tensor["Dimensions"]) * FORMATS[tensor["Format/Datatype"]][0]


def weights(layer):
    record = layer.get("Weights")
    return record["Count"] * WEIGHT_BYTES[record["Type"]] if record else 0


def test_the_signature_begins_as_that_of_trex():
    parameters = inspect.signature(EnginePlan).parameters
    names = ["graph_file", "profiling_file", "profiling_metadata_file", "build_metadata_file", "name", "profile_id"]
    assert list(parameters)[:6] == names
    assert all(parameters[name].default is None for name in names[1:])


def test_layers_stand_in_the_order_of_the_file_under_its_names(plan, raw):
    assert plan.df["Name"].tolist() == [layer["Name"] for layer in raw] == [layer.name for layer in plan.layers]
    assert plan.df["subtype"].tolist() == [layer["LayerType"] for layer in raw]
    assert plan.df["type"].tolist() == [layer.get("ParameterType", layer["LayerType"]) for layer in raw]
    assert plan.df["tactic"].tolist() == [layer.get("TacticName", "TensorRT") for layer in raw]


def test_precisions_are_those_of_the_first_input_and_output(plan, raw):
    for column, side in (("precision", "Inputs"), ("output_precision", "Outputs")):
        assert plan.df[column].tolist() == [FORMATS[layer[side][0]["Format/Datatype"]][1] for layer in raw]


def test_bytes_are_those_of_inputs_outputs_and_weights(plan, raw):
    moved = [sum(map(size, layer["Inputs"])) + sum(map(size, layer["Outputs"])) for layer in raw]
    own = [weights(layer) for layer in raw]
    assert plan.df["total_io_size_bytes"].tolist() == moved
    assert plan.df["weights_size"].tolist() == own
    assert plan.df["total_footprint_bytes"].tolist() == [a + b for a, b in zip(moved, own, strict=True)]
    assert plan.total_act_size == sum(moved)
    assert plan.total_weights_size == sum(own)


def test_times_are_those_of_the_profile(plan, engine):
    records = {r["name"]: r for r in json.loads(Path(f"{engine}.profile.json").read_text(encoding="utf-8"))[1:]}
    keys = {"time": "timeMs", "avg_time": "averageMs", "median_time": "medianMs", "pct_time": "percentage"}
    for column, key in keys.items():
        assert plan.df[f"latency.{column}"].tolist() == [records[name][key] for name in plan.df["Name"]]
    assert plan.total_runtime == pytest.approx(sum(records[name]["averageMs"] for name in plan.df["Name"]))


def test_convolutions_have_the_attributes_and_the_matrix_product_that_they_are(plan, raw):
    convs = plan.get_layers_by_type("Convolution").set_index("Name")
    layers = [layer for layer in raw if layer.get("ParameterType") == "Convolution"]
    assert list(convs.index) == [layer["Name"] for layer in layers]
    for layer in layers:
        conv = convs.loc[layer["Name"]]
        for column, key in ATTRIBUTES.items():
            value = layer[key]
            assert conv[column] == (tuple(value) if isinstance(value, list) else value)
        (n, c, _, _), (_, k, p, q) = layer["Inputs"][0]["Dimensions"], layer["Outputs"][0]["Dimensions"]
        r, s = layer["Kernel"]
        macs = n * k * p * q * c * r * s // layer["Groups"]
        data_size = FORMATS[layer["Inputs"][0]["Format/Datatype"]][0]
        moved = size(layer["Inputs"][0]) + k * c * r * s // layer["Groups"] * data_size + size(layer["Outputs"][0])
        assert (conv["attr.macs"], conv["attr.M"], conv["attr.N"]) == (macs, n * p * q, k)
        assert conv["attr.arithmetic_intensity"] == pytest.approx(macs / moved)
        assert conv["attr.compute_efficiency"] == pytest.approx(macs / conv["latency.avg_time"])
        assert conv["attr.memory_efficiency"] == pytest.approx(moved / conv["latency.avg_time"])


def test_device_build_and_performance_are_those_of_the_metadata(plan, engine):
    run, build = (json.loads(Path(f"{engine}.{end}.metadata.json").read_text()) for end in ("profile", "build"))
    assert plan.device_properties == run["device_information"]
    assert plan.performance_summary == run["performance_summary"]
    assert plan.builder_cfg == {**build["model_options"], **build["build_options"]}


def test_bindings_are_those_of_the_file(plan, engine):
    names = json.loads(Path(f"{engine}.graph.json").read_text(encoding="utf-8"))["Bindings"]
    inputs, outputs = plan.get_bindings()
    assert [tensor.name for tensor in (*inputs, *outputs)] == plan.bindings == names


def test_the_name_is_that_of_the_file_or_the_one_that_is_given(engine):
    assert EnginePlan(f"{engine}.graph.json").name == Path(f"{engine}.graph.json").name
    assert EnginePlan(Path(f"{engine}.graph.json"), name="mine").name == "mine"


def test_a_myelin_engine_has_the_columns_too():
    path = DUMPS / "trt10.16-mnist" / "mnist.onnx.engine.graph.json"
    if not path.exists():
        pytest.skip("the sample dumps are not on this machine")
    plan = EnginePlan(path)
    records = json.loads(path.read_text(encoding="utf-8"))["Layers"]
    assert plan.df["type"].tolist() == [record.get("ParameterType", record["LayerType"]) for record in records]
    # TREx writes 0 bytes for the weights of a product whose record has none: they are not known.
    assert plan.df.set_index("type")["weights_size"].isna()["gemm"]
    assert set(plan.df["precision"]) == {"FP32", "INT32"}
