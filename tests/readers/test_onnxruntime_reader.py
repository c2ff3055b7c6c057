"""A profile of ONNX Runtime is read on its own: nodes, times of each run, types and sizes."""

from __future__ import annotations

import json

import numpy as np
import pytest
from unet_onnx import SHAPES, unet, write_onnx

from sdtrt.analysis.load import load
from sdtrt.errors import PlanError


def node(name, micros, op="MatMul", index=0, **facts):
    args = {"op_name": op, "node_index": str(index), "provider": "CPUExecutionProvider", **facts}
    return {"cat": "Node", "name": f"{name}_kernel_time", "dur": micros, "ts": 0, "ph": "X", "args": args}


def run(micros):
    return {"cat": "Session", "name": "model_run", "dur": micros, "ts": 0, "ph": "X", "args": {}}


@pytest.fixture
def trace(tmp_path):
    def read(*events):
        path = tmp_path / "unet_2026-01-01_00-00-00.json"
        path.write_text(json.dumps(events))
        return load(path).plans[0]

    return read


CONV = {
    "input_type_shape": [{"float16": [1, 4, 8, 8]}, {"float16": [8, 4, 3, 3]}, {"float16": [8]}],
    "output_type_shape": [{"float16": [1, 8, 8, 8]}],
    "parameter_size": "592",
    "activation_size": "512",
    "output_size": "1024",
}


def test_nodes_have_the_times_of_each_run_but_the_warm_up(trace):
    plan = trace(node("/a/MatMul", 9), run(20), node("/a/MatMul", 3), run(10), node("/a/MatMul", 4), run(12))
    assert plan.component == "unet"
    assert (plan.backend, plan.runs, plan.wall_times_ms) == ("onnxruntime", 2, (0.01, 0.012))
    assert [(x.name, x.op, x.kind, x.module, x.times_ms) for x in plan.layers] == [
        ("/a/MatMul", "MatMul", "gemm", "a", (0.003, 0.004))
    ]
    assert plan.layers[0].kernel == "CPUExecutionProvider"
    assert plan.notes == ("the first of 3 runs was left out as a warm-up",)


def test_weights_are_told_from_activations_by_their_bytes(trace):
    layer = trace(node("/conv/Conv", 5, "Conv", **CONV)).layers[0]
    assert [t.shape for t in layer.inputs] == [(1, 4, 8, 8)]
    assert (layer.weight_bytes, layer.bytes_moved, layer.io_bytes) == (592, 2128, 1536)
    assert (layer.precision, layer.outputs[0].shape) == ("float16", (1, 8, 8, 8))


def test_a_node_in_a_loop_has_its_sum_in_each_run(trace):
    plan = trace(node("a", 1), node("a", 2), run(9), node("a", 3), node("a", 4), run(9))
    assert plan.layers[0].times_ms == (0.003, 0.007)


def test_a_node_that_does_not_run_every_time_has_a_mean(trace):
    plan = trace(node("a", 1), run(9), node("a", 3), node("a", 5), run(9))
    assert (plan.layers[0].times_ms, plan.layers[0].time_ms) == (None, pytest.approx(0.0045))


def test_nodes_of_one_name_are_told_apart_and_nameless_ones_named(trace):
    plan = trace(node("", 1, "Add", 3), node("", 2, "Mul", 4), run(5))
    assert [(x.name, x.times_ms) for x in plan.layers] == [("Add_3", (0.001,)), ("Mul_4", (0.002,))]


@pytest.mark.parametrize(
    "event",
    [3, {}, {"cat": "Node"}, {"cat": "Node", "name": 4}, node("b", -1), node("b", "1"), {**node("b", 1), "args": 7}]
    + [node("b", 1, input_type_shape=s) for s in (3, [4], [{}], [{"float": [-1]}], [{"float": "x"}])]
    + [node("b", 1, parameter_size=s) for s in (-1, "x", None, [1], "9" * 30)],
)
def test_a_broken_event_does_not_break_the_rest(trace, event):
    plan = trace(run(10), node("a", 2), event)
    assert plan.layers[0].times_ms == (0.002,)
    assert all((x.weight_bytes or 0) >= 0 for x in plan.layers)


def test_a_trace_without_nodes_is_no_profile(tmp_path):
    (tmp_path / "t.json").write_text('[{"cat": "other"}]')
    with pytest.raises(PlanError) as caught:
        load(tmp_path / "t.json")
    assert caught.value.slug == "plan-unknown"


def test_a_real_trace_is_read_and_joined(tmp_path):
    ort = pytest.importorskip("onnxruntime")
    path = tmp_path / "unet.onnx"
    write_onnx(path, unet())
    options = ort.SessionOptions()
    options.enable_profiling = True
    options.profile_file_prefix = str(tmp_path / "unet_trace")
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    feeds = {n: np.zeros(s, np.int64 if n == "timestep" else np.float16) for n, s in SHAPES.items()}
    for _ in range(3):
        session.run(None, feeds)
    plan = load(session.end_profiling(), onnx=path, shapes=SHAPES).plans[0]
    assert (plan.runs, len(plan.wall_times_ms)) == (2, 2)
    assert {len(x.times_ms) for x in plan.layers} == {2}
    assert sum(sum(x.times_ms) for x in plan.layers) <= sum(plan.wall_times_ms)
    convolutions = [x for x in plan.layers if x.kind == "conv"]
    assert len(convolutions) == 11
    conv_nodes = [n for n in plan.nodes if n.kind == "conv"]
    assert sum(x.flops for x in convolutions) == sum(n.flops for n in conv_nodes)
