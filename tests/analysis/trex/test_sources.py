"""What an EnginePlan can be made of besides TREx's files: an ONNX file beside them, plans, bundles, other runtimes."""

from __future__ import annotations

import pytest
from trt_dump import write

from sdtrt.analysis.trex import EnginePlan, plotly_pie2
from sdtrt.errors import PlanError
from sdtrt.plan.layers import Layer, NodeCost, Plan, TensorInfo


@pytest.fixture(scope="module", params=["8", "10", "11"])
def dump(request, tmp_path_factory):
    return write(tmp_path_factory.mktemp("dump"), request.param)


@pytest.fixture(scope="module")
def joined(dump) -> EnginePlan:
    return EnginePlan(dump.graph, dump.profile, dump.profile_metadata, dump.build_metadata, onnx=dump.onnx)


def test_an_onnx_file_resolves_open_sizes_and_weights_of_fused_layers(dump, joined):
    bare = EnginePlan(dump.graph, dump.profile, dump.profile_metadata)
    columns = ["total_io_size_bytes", "weights_size"]
    assert bare.df[columns].isna().any(axis=None)
    assert joined.df[columns].notna().all(axis=None)
    known = bare.df["total_io_size_bytes"].dropna()
    assert (joined.df["total_io_size_bytes"][known.index] == known).all()


def test_an_onnx_file_adds_the_module_of_each_layer(joined):
    modules = joined.df.groupby("module")["latency.avg_time"].sum()
    assert any(module.startswith("down_blocks.0") for module in modules.index)
    assert 0 < modules.sum() <= joined.total_runtime * 1.0001


def test_convolutions_of_every_version_have_work(joined):
    convs = joined.get_layers_by_type("Convolution")
    assert len(convs) >= 3
    assert (convs["attr.macs"] > 0).all()
    assert (convs["attr.arithmetic_intensity"] > 0).all()


def onnxruntime_plan() -> Plan:
    def tensor(name, *shape):
        return TensorInfo(name=name, shape=shape, dtype="float32")

    conv = Layer(
        name="conv_in",
        kind="conv",
        op="Conv",
        inputs=(tensor("x", 1, 4, 8, 8),),
        outputs=(tensor("y", 1, 16, 8, 8),),
        nodes=("/conv_in/Conv",),
        module="conv_in",
        weight_bytes=4 * (16 * 4 * 9 + 16),
        times_ms=(1.0, 2.0, 6.0),
    )
    cost = NodeCost(
        name="/conv_in/Conv", op="Conv", kind="conv", module="conv_in",
        flops=2 * 16 * 64 * 36 + 16 * 64, bytes_moved=0, weight_bytes=0,
    )  # fmt: skip
    facts = {"backend": "onnxruntime", "backend_version": "1", "device": "a CPU", "precision": "float32"}
    return Plan(component="unet", layers=(conv,), nodes=(cost,), wall_times_ms=(5.0, 3.0, 4.0), **facts)


def test_a_plan_file_of_another_runtime_has_trex_s_columns(tmp_path):
    onnxruntime_plan().save(tmp_path / "plan.json")
    plan = EnginePlan(tmp_path / "plan.json")
    (row,) = plan.df.to_dict("records")
    assert (row["type"], row["subtype"], row["precision"]) == ("Convolution", "Conv", "FP32")
    assert [row[f"latency.{key}"] for key in ("time", "avg_time", "median_time", "pct_time")] == [9.0, 3.0, 2.0, 100.0]
    (conv,) = plan.get_layers_by_type("Convolution").to_dict("records")
    # No kernel size in the plan: the work is that of the ONNX node, and its bias is no multiply-add.
    assert (conv["attr.macs"], conv["attr.K"]) == (16 * 64 * 36, 36)
    assert plan.device_properties == {"Selected Device": "a CPU"}
    assert plan.performance_summary == {"Latency": [3.0, 5.0, 4.0, 4.0, 4.8, 4.9, 4.98]}
    assert [tensor.name for tensor in plan.get_bindings()[0]] == ["x"]


def test_of_a_folder_of_engines_the_unet_is_shown_or_the_one_that_is_named(tmp_path):
    for name in ("text_encoder", "unet"):
        (tmp_path / name).mkdir()
        onnxruntime_plan().model_copy(update={"component": name}).save(tmp_path / name / "plan.json")
    assert EnginePlan(tmp_path).plan.component == "unet"
    assert EnginePlan(tmp_path, component="text_encoder").plan.component == "text_encoder"
    with pytest.raises(PlanError) as error:
        EnginePlan(tmp_path, component="vae")
    assert "text_encoder, unet" in str(error.value)


def test_a_plan_without_any_time_is_shown_without_error(tmp_path, capsys):
    untimed = onnxruntime_plan().layers[0].model_copy(update={"times_ms": None})
    onnxruntime_plan().model_copy(update={"layers": (untimed,)}).save(tmp_path / "plan.json")
    plan = EnginePlan(tmp_path / "plan.json")
    plan.summary()
    assert "Average time: not known" in capsys.readouterr().out
    assert len(plan.df.nlargest(3, "latency.pct_time")) <= 3
    charts = [(plan.df, "share", "latency.pct_time", "precision")]
    assert len(plotly_pie2("Precision", charts, do_show=False).data) == 1
