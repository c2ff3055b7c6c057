"""Where an EnginePlan says something else than TREx, since TREx is wrong there. Each test says what TREx does."""

from __future__ import annotations

import json
from math import isnan

import pytest

from sdtrt.analysis.trex import Activation, EnginePlan, clean_for_display, group_count, group_sum_attr
from sdtrt.errors import PlanError

FP16 = "Row major linear FP16 format"


def tensor(name, dims=(1, 64, 8, 8), form=FP16):
    return {"Name": name, "Dimensions": list(dims), "Format/Datatype": form}


def layer(name, kind="Reformat", inputs=("x",), outputs=("y",), **more):
    sides = {"Inputs": inputs, "Outputs": outputs}
    tensors = {key: [t if isinstance(t, dict) else tensor(t) for t in side] for key, side in sides.items()}
    return {"Name": name, "LayerType": kind, **tensors, **more}


def conv(name="conv", inputs=None, outputs=None, groups=1, kernel=(3, 3), weights="Half", **more):
    inputs, outputs = inputs or [tensor("x")], outputs or [tensor("y", (1, 32, 8, 8))]
    count = outputs[0]["Dimensions"][1] * inputs[0]["Dimensions"][1] // groups
    for side in kernel:
        count *= side
    record = {"Kernel": list(kernel), "Groups": groups, "Weights": {"Type": weights, "Count": count}}
    kinds = {"ParameterType": "Convolution", "OutMaps": outputs[0]["Dimensions"][1]}
    return layer(name, "CaskConvolution", inputs, outputs, **kinds, **record, **more)


def record(name, ms, pct=10.0):
    return {"name": name, "timeMs": 10 * ms, "averageMs": ms, "medianMs": ms, "percentage": pct}


@pytest.fixture
def plan_of(tmp_path):
    def make(layers, profile=None, bindings=("x", "y"), **more) -> EnginePlan:
        graph, times = tmp_path / "e.graph.json", tmp_path / "e.profile.json"
        graph.write_text(json.dumps({"Layers": layers, "Bindings": list(bindings)}), encoding="utf-8")
        if profile is None:
            return EnginePlan(graph, **more)
        times.write_text(json.dumps([{"count": 10}, *profile]), encoding="utf-8")
        return EnginePlan(graph, times, **more)

    return make


@pytest.mark.parametrize(
    ("form", "precision", "bytes_each"),
    [
        ("BFloat16", "BF16", 2),  # TREx: "FP32"
        ("Row major linear BFloat16 format", "BF16", 2),  # TREx: 0 bytes, as in the next three
        ("Channel major BFloat16 format where channel % 8 == 0", "BF16", 2),
        ("Bool", "Bool", 1),
        ("Row major linear BOOL", "Bool", 1),
        ("Sixty-four wide channel vectorized row major FP16 format", "FP16", 2),  # TREx: not in its table, so 0
        ("Row major linear FP8 format", "FP8", 1),
        ("Int64", "INT64", 8),
    ],
)
def test_every_type_that_a_format_names_has_its_size_and_its_own_name(form, precision, bytes_each):
    made = Activation(tensor("t", (2, 3), form))
    assert (made.precision, made.size_bytes) == (precision, 6 * bytes_each)


@pytest.mark.parametrize("form", ["Unknown format", "N/A due to dynamic shapes", "None", "something new"])
def test_a_format_without_a_type_has_an_unknown_size_and_not_none(form):
    made = Activation(tensor("t", (2, 3), form))
    assert made.precision == "Unknown format"
    assert isnan(made.size_bytes)


def test_four_bit_elements_share_bytes():
    assert Activation(tensor("t", (3, 1), "Int4")).size_bytes == 2


@pytest.mark.parametrize("dims", [(-1, 320, 64, 64), (-1, -1, 64, 64)])
def test_an_open_dimension_makes_bytes_unknown(plan_of, dims):
    # TREx multiplies by -1: negative bytes, or with two of them bytes that look right.
    plan = plan_of([layer("a", "kgen", [tensor("x", dims, "Half")], [tensor("y", dims, "Half")])])
    assert plan.df[["total_io_size_bytes", "total_footprint_bytes"]].isna().all(axis=None)
    assert isnan(plan.total_act_size)


def test_times_are_joined_by_name_when_the_counts_agree(plan_of):
    # TREx joins by place as soon as there are as many records as layers, whatever their names.
    plan = plan_of([layer("a"), layer("b")], [record("b", 2.0), record("a", 1.0)])
    assert plan.df.set_index("Name")["latency.avg_time"].to_dict() == {"a": 1.0, "b": 2.0}


def test_a_layer_that_was_not_measured_has_no_time_instead_of_zero(plan_of):
    plan = plan_of([layer("a"), layer("b")], [record("a", 1.0), record("other", 3.0)])
    assert isnan(plan.df.set_index("Name")["latency.avg_time"]["b"])
    assert plan.total_runtime == 1.0
    assert plan.df.nlargest(1, "latency.pct_time")["Name"].tolist() == ["a"]


def test_layers_of_one_name_keep_their_own_times_and_rows(plan_of):
    # TREx merges on the name, makes four rows of two, and fails in an assertion.
    plan = plan_of([conv("a"), conv("a")], [record("a", 1.0), record("a", 2.0)])
    assert plan.df["Name"].tolist() == ["a", "a_2"]
    assert plan.df["latency.avg_time"].tolist() == [1.0, 2.0]


def test_a_name_that_is_taken_is_not_given_to_a_duplicate(plan_of):
    plan = plan_of([layer("a"), layer("a"), layer("a_2")])
    assert plan.df["Name"].is_unique
    assert plan.df["Name"].tolist()[::2] == ["a", "a_2"]


def test_time_of_what_is_not_in_the_table_is_kept_and_shown(plan_of, capsys):
    # TREx drops shape_call, signal and wait, then joins a shorter table to a longer profile.
    layers = [layer("s", "signal"), layer("w", "wait"), layer("w2", "wait"), layer("call", "shape_call", (), ())]
    plan = plan_of([*layers, layer("a")], [record("call", 0.5), record("a", 1.0)])
    assert plan.df["Name"].tolist() == ["a"]
    assert plan.df["latency.avg_time"].tolist() == [1.0]
    plan.summary()
    assert "Not in the table: 1 signal, 2 wait, 1 shape_call: 0.500 ms" in capsys.readouterr().out


def test_a_control_character_in_a_profile_is_read(tmp_path):
    graph, times = tmp_path / "e.graph.json", tmp_path / "e.profile.json"
    graph.write_text(json.dumps([layer("a\x1eb")]), encoding="utf-8")
    times.write_text('[{"count": 1}, {"name": "a\x1eb", "timeMs": 1, "averageMs": 1, "percentage": 100}]', "utf-8")
    # TREx: ValueError, and where it reads the name it changes it on one side only.
    assert EnginePlan(graph, times).df["latency.avg_time"].tolist() == [1.0]


def test_a_tensor_that_is_listed_twice_is_read_once(plan_of):
    plan = plan_of([layer("a", "kgen", ["x", "x"], ["y"])])
    assert plan.df["total_io_size_bytes"].tolist() == [2 * 64 * 64 * 2]


@pytest.mark.parametrize(("kind", "size"), [("BFloat16", 2), ("FP8", 1), ("Int64", 8), ("Int4", 0.5)])
def test_weights_of_newer_types_have_a_size(plan_of, kind, size):
    # TREx swallows a KeyError and reports 0.
    assert plan_of([conv(weights=kind)]).df["weights_size"].tolist() == [32 * 64 * 9 * size]


def test_weights_that_the_file_does_not_tell_are_unknown_and_the_summary_says_so(plan_of, capsys):
    plan = plan_of([conv(), layer("gemm", "gemm")])
    assert plan.df["weights_size"].isna().tolist() == [False, True]
    assert plan.total_weights_size == 32 * 64 * 9 * 2
    plan.summary()
    assert "(not known for 1 of 2 layers)" in capsys.readouterr().out


def test_the_weights_of_a_convolution_count_with_their_own_type(plan_of):
    # TREx sizes them with the type of the input.
    convs = plan_of([conv(weights="Int8")], [record("conv", 2.0)]).get_layers_by_type("Convolution")
    macs, moved = 32 * 64 * 9 * 64, 64 * 64 * 2 + 32 * 64 * 2 + 32 * 64 * 9
    assert convs["attr.arithmetic_intensity"].tolist() == [macs / moved]


def test_the_sides_of_a_grouped_convolution_multiply_to_its_work(plan_of):
    # TREx leaves the groups out of attr.K.
    (row,) = plan_of([conv(groups=8)]).get_layers_by_type("Convolution").to_dict("records")
    assert row["attr.M"] * row["attr.N"] * row["attr.K"] == row["attr.macs"] == 64 * 32 * 8 * 9


@pytest.mark.parametrize("spatial", [(8,), (4, 8, 8)])
def test_convolutions_of_one_and_three_dimensions_are_annotated(plan_of, spatial):
    # TREx unpacks four sizes and fails.
    sides = [tensor("x", (1, 64, *spatial))], [tensor("y", (1, 32, *spatial))]
    (row,) = (
        plan_of([conv("c", *sides, kernel=(3,) * len(spatial))]).get_layers_by_type("Convolution").to_dict("records")
    )
    places = 8 if len(spatial) == 1 else 256
    assert row["attr.macs"] == places * 32 * 64 * 3 ** len(spatial)


def test_a_convolution_without_times_has_no_efficiency_instead_of_zero(plan_of):
    convs = plan_of([conv()]).get_layers_by_type("Convolution")
    assert convs[["attr.compute_efficiency", "attr.memory_efficiency"]].isna().all(axis=None)


def test_a_convolution_of_open_size_is_listed_with_what_is_known(plan_of):
    convs = plan_of([conv("c", [tensor("x", (-1, 64, 8, 8))], [tensor("y", (-1, 32, 8, 8))])])
    row = convs.get_layers_by_type("Convolution")
    assert row["attr.kernel"].tolist() == [(3, 3)]
    assert row["attr.macs"].isna().all()


def test_the_split_spelling_of_tensorrt_11_is_read(plan_of):
    # TREx: KeyError 'Format/Datatype'.
    new = {"Name": "x", "Dimensions": [1, 64, 8, 8], "Datatype": "Half", "Format": "Row major linear"}
    plan = plan_of([layer("a", "kgen", [new], [{**new, "Name": "y"}])])
    assert plan.df[["precision", "total_io_size_bytes"]].values.tolist() == [["FP16", 2 * 64 * 64 * 2]]


def test_a_correlation_is_a_convolution(plan_of):
    # What TensorRT 11 calls it; TREx knows no such type.
    assert plan_of([layer("a", "correlation")]).df[["type", "subtype"]].values.tolist() == [
        ["Convolution", "correlation"]
    ]


def test_a_layer_without_inputs_keeps_its_row_in_groups(plan_of):
    # TREx has None there, which pandas leaves out of every group.
    plan = plan_of([layer("a"), layer("b", "memset", (), ())], [record("a", 1.0, 40.0), record("b", 1.5, 60.0)])
    assert group_count(plan.df, "precision")["count"].sum() == 2
    assert group_sum_attr(plan.df, "precision", "latency.pct_time")["latency.pct_time"].sum() == 100
    assert isnan(plan.df["total_io_size_bytes"][1])


def test_no_ops_are_folded_and_the_table_shows_it(plan_of):
    layers = [layer("a", outputs=["m"]), layer("n", "NoOp", ["m"], ["k"]), layer("b", inputs=["k"])]
    plan = plan_of([*layers, layer("n2", "NoOp", ["y"], ["out"])], bindings=("x", "out"))
    assert plan.df["Name"].tolist() == ["a", "b"]
    assert [plan.df["Inputs"][1][0]["Name"], plan.find("b").inputs[0].name] == ["m", "m"]
    assert plan.find("b").outputs[0].name == "out"


def test_a_no_op_between_two_bindings_is_no_error(plan_of):
    # TREx: KeyError, it looks for the layer that makes an input.
    plan = plan_of(
        [layer("n", "NoOp", ["x"], ["y"]), layer("a", inputs=["x"], outputs=["z"])], bindings=("x", "y", "z")
    )
    assert [binding.name for binding in plan.get_bindings()[0]] == ["x"]


def test_layers_of_type_constant_stand_apart(plan_of):
    plan = plan_of([layer("c", "Constant", (), ["k"]), layer("a", inputs=["x", "k"])])
    assert [x.name for x in plan.constants] == ["c"]
    assert [x.name for x in plan.layers] == ["a"]
    assert [x.name for x in plan.all_layers] == ["c", "a"]


def test_bindings_come_once_and_in_the_order_of_the_file(plan_of):
    # TREx: list(set(...)), in another order each time.
    layers = [layer("a", inputs=["x1", "x2"], outputs=["m"]), layer("b", inputs=["m", "x1"], outputs=["y1", "y2"])]
    plan = plan_of(layers, bindings=("x2", "x1", "y2", "y1"))
    assert [[t.name for t in side] for side in plan.get_bindings()] == [["x2", "x1"], ["y2", "y1"]]


def test_a_file_without_bindings_has_those_that_no_layer_makes_or_reads(tmp_path):
    path = tmp_path / "e.graph.json"
    path.write_text(json.dumps({"Layers": [layer("a", outputs=["m"]), layer("b", inputs=["m"])]}), encoding="utf-8")
    # TREx: ValueError.
    assert EnginePlan(path).bindings == ["x", "y"]


def test_raw_layers_are_taken_as_they_are():
    assert EnginePlan([layer("a"), conv()], name="two").df["type"].tolist() == ["Reformat", "Convolution"]


def test_profiles_beyond_the_first_have_layers_and_times(plan_of):
    # TREx: ValueError for Myelin's names, and no times.
    first = [layer("mm_myl0_0", "gemm"), layer("__myl_Add_myl0_1", "kgen")]
    second = [layer("mm [profile 1]_myl2_0", "gemm"), layer("__myl_Add_myl2_1", "kgen")]
    times = [record("mm [profile 1]_myl2_0", 1.0), record("__myl_Add_myl2_1", 2.0)]
    plan = plan_of([*first, *second], times, profile_id=1)
    assert plan.df["latency.avg_time"].tolist() == [1.0, 2.0]


def test_a_metadata_file_may_be_missing_and_lack_sections(tmp_path, plan_of):
    # TREx: KeyError when a section is not there.
    (tmp_path / "m.json").write_text('{"device_information": {"Selected Device": "GPU"}}', encoding="utf-8")
    graph = tmp_path / "e.graph.json"
    graph.write_text(json.dumps([layer("a")]), encoding="utf-8")
    plan = EnginePlan(graph, None, tmp_path / "m.json", tmp_path / "none.json")
    assert (plan.device_properties, plan.performance_summary, plan.builder_cfg) == ({"Selected Device": "GPU"}, {}, {})


def test_a_file_that_is_no_layer_report_is_an_error_that_says_what_is_expected(tmp_path):
    path = tmp_path / "x.json"
    path.write_text('{"a": 1}', encoding="utf-8")
    with pytest.raises(PlanError, match="no layer report"):
        EnginePlan(path)


def test_a_table_for_display_has_no_raw_keys_and_no_empty_columns(plan_of):
    # TREx means to drop them and drops nothing.
    table = clean_for_display(plan_of([conv(), layer("b")]).df)
    first = ["Name", "type", "Inputs", "Outputs", "total_footprint_bytes", "tactic"]
    assert list(table.columns) == [*first, "output_precision", "weights_size"]
    assert table["Inputs"].tolist() == ["FP16 NCHW", "FP16 NCHW"]
