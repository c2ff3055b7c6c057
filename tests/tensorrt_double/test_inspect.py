"""What the inspector and the profiler say, and what a refit changes."""

import json
import re

import numpy as np
import onnx
import pytest
from trt.small import RANGES, model


def information(trt, engine, context=None):
    inspector = engine.create_engine_inspector()
    inspector.execution_context = context
    return json.loads(inspector.get_engine_information(trt.LayerInformationFormat.JSON))


def nodes(layer):
    return [n for part in re.split("[\x1e\x1f]", layer["Metadata"]) for n in re.findall(r"\[ONNX Layer: (.*?)\]", part)]


def test_layers_name_every_node_once(trt, small):
    engine = small.engine()
    layers = information(trt, engine)["Layers"]
    assert sorted(n for layer in layers for n in nodes(layer)) == sorted(
        n.name for n in onnx.load(small.folder / "small.onnx").graph.node
    )
    assert len(layers) == engine.num_layers


def test_the_attention_is_one_layer(trt, small):
    layers = information(trt, small.engine())["Layers"]
    (attention,) = [layer for layer in layers if "mha" in layer["Name"]]
    assert attention["LayerType"] == "kgen"
    assert {"/attn/MatMul", "/attn/Softmax", "/attn/MatMul_1"} <= set(nodes(attention))


def test_a_product_takes_its_bias(trt, small):
    layers = information(trt, small.engine())["Layers"]
    (product,) = [layer for layer in layers if layer["LayerType"] == "gemm"]
    assert nodes(product) == ["/out/MatMul", "/out/Add"]


def test_the_schema_of_each_version(trt, small):
    engine = small.engine()
    found = information(trt, engine, small.context(engine))
    conv = next(layer for layer in found["Layers"] if nodes(layer) == ["/conv/Conv"])
    (tensor,) = conv["Inputs"][:1]
    assert tensor["Name"] == "image"
    assert tensor["Dimensions"] == [2, 4, 8, 8]
    if trt.__version__.startswith("11"):
        assert conv["LayerType"] == "correlation"
        assert {"Datatype", "Format"} <= tensor.keys()
        assert "Format/Datatype" not in tensor
        (image,) = [t for t in found["I/O Tensors"] if t["Name"] == "image"]
        assert (image["IOMode"], image["DataType"]) == ("Input", "Float")
        assert image["ProfileInfo"][0]["MaxShape"] == [4, 4, 16, 16]
        assert "Bindings" not in found
    else:
        assert conv["LayerType"] == "CaskConvolution"
        assert (conv["ParameterType"], conv["Kernel"], conv["OutMaps"]) == ("Convolution", [3, 3], 8)
        assert tensor["Format/Datatype"] == "Float"
        assert tensor["Location"] == "Device"
        assert found["Bindings"] == ["image", "scale", "result"]


def test_without_a_context_sizes_are_open_and_all_profiles_are_listed(trt, small):
    other = {"image": ((1, 4, 32, 32), (1, 4, 32, 32), (1, 4, 32, 32))}
    engine = small.engine(profiles=(RANGES, other))
    layers = information(trt, engine)["Layers"]
    assert len(layers) == 2 * engine.num_layers
    assert sum("[profile 1]" in layer["Name"] for layer in layers) == engine.num_layers
    assert any(-1 in t["Dimensions"] for layer in layers for t in layer["Inputs"])
    context = small.context(engine)
    assert len(information(trt, engine, context)["Layers"]) == engine.num_layers


@pytest.mark.parametrize("verbosity", ["NONE", "LAYER_NAMES_ONLY"])
def test_the_build_decides_what_is_told(trt, small, verbosity):
    engine = small.engine(profiling_verbosity=getattr(trt.ProfilingVerbosity, verbosity))
    found = information(trt, engine).get("Layers", [])
    assert all(isinstance(layer, str) for layer in found)
    assert bool(found) == (verbosity != "NONE")


def test_the_inspector_does_not_keep_the_context(trt, small):
    engine = small.engine()
    inspector = engine.create_engine_inspector()
    inspector.execution_context = small.context(engine)
    assert inspector.execution_context is None


def profiler(trt):
    class Times(trt.IProfiler):
        def __init__(self):
            trt.IProfiler.__init__(self)
            self.seen = []

        def report_layer_time(self, layer_name, ms):
            self.seen.append((layer_name, ms))

    return Times()


def test_the_profiler_names_the_inspectors_layers(trt, small):
    engine = small.engine()
    context = small.context(engine)
    names = [layer["Name"] for layer in information(trt, engine, context)["Layers"]]
    times = context.profiler = profiler(trt)
    assert context.execute_async_v3(7)
    seen = [name for name, _ in times.seen]
    assert [n for n in seen if not n.startswith("Reformatting CopyNode")] == names
    assert [ms for name, ms in times.seen if name.startswith("Reformatting CopyNode")] == [0.0, 0.0]
    assert sum(ms for _, ms in times.seen) > 0


def test_reports_can_wait_until_they_are_asked_for(trt, small):
    context = small.context(small.engine())
    times = context.profiler = profiler(trt)
    context.enqueue_emits_profile = False
    assert not context.report_to_profiler()
    assert context.execute_async_v3(7)
    assert times.seen == []
    assert context.report_to_profiler()
    assert times.seen
    assert not context.report_to_profiler()


# ------------------------------------------------------------------------------------ refit


@pytest.fixture
def refittable(trt, small):
    """(session, engine, context) of an engine whose weights can be replaced."""
    small.config.set_flag(trt.BuilderFlag.REFIT)
    engine = small.engine()
    return small, engine, small.context(engine)


def put(small, refitter, name, array):
    want = refitter.get_weights_prototype(name)
    return refitter.set_named_weights(name, small.trt.Weights(want.dtype, array.ctypes.data, array.size))


def test_an_engine_that_was_not_built_for_it_cannot_be_refitted(trt, small):
    engine = small.engine()
    assert not engine.refittable
    with pytest.raises(TypeError, match="factory function returned nullptr"):
        trt.Refitter(engine, small.log)


def test_new_weights_change_the_result_and_neighbors_are_asked_for(trt, refittable):
    small, engine, context = refittable
    assert context.execute_async_v3(7)
    before = small.result.copy()
    refitter = trt.Refitter(engine, small.log)
    weight, bias = np.zeros((8, 8), np.float32), np.full(8, 3, np.float32)
    assert put(small, refitter, "out.weight", weight)
    assert refitter.get_missing_weights() == ["out.bias"]
    assert not refitter.refit_cuda_engine()
    assert put(small, refitter, "out.bias", bias)
    assert refitter.refit_cuda_engine()
    assert context.execute_async_v3(7)
    np.testing.assert_allclose(small.result, 3)
    assert not np.allclose(before, 3)


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("out.weight", np.zeros(3, np.float32)),
        ("nothing.weight", np.zeros(3, np.float32)),
    ],
)
def test_wrong_weights_are_refused(trt, refittable, name, array):
    small, engine, _ = refittable
    refitter = trt.Refitter(engine, small.log)
    assert not refitter.set_named_weights(name, trt.Weights(trt.DataType.FLOAT, array.ctypes.data, array.size))
    assert name in small.errors[-1]


def test_weights_of_another_type_are_refused(trt, refittable):
    small, engine, _ = refittable
    array = np.zeros((8, 8), np.float16)
    refitter = trt.Refitter(engine, small.log)
    assert not refitter.set_named_weights("out.weight", trt.Weights(array))
    assert "expected FLOAT" in small.errors[-1]


def test_a_captured_run_keeps_the_old_weights(trt, refittable):
    from tensorrt import _capture

    small, engine, context = refittable
    assert context.execute_async_v3(7)
    before = small.result.copy()
    _capture.begin()
    assert context.execute_async_v3(7)
    replay = _capture.end()
    refitter = trt.Refitter(engine, small.log)
    zeros = np.zeros((8, 8), np.float32)
    bias = np.zeros(8, np.float32)
    assert put(small, refitter, "out.weight", zeros)
    assert put(small, refitter, "out.bias", bias)
    assert refitter.refit_cuda_engine()
    replay()
    np.testing.assert_array_equal(small.result, before)


def test_a_stripped_plan_runs_when_its_weights_are_put_back(trt, small):
    small.config.set_flag(trt.BuilderFlag.STRIP_PLAN)
    small.config.set_flag(trt.BuilderFlag.REFIT)
    plan = small.plan()
    engine = small.engine(plan)
    assert engine.create_execution_context() is None
    refitter = trt.Refitter(engine, small.log)
    parser = trt.OnnxParserRefitter(refitter, small.log)
    assert parser.refit_from_file(str(small.folder / "small.onnx"))
    assert refitter.refit_cuda_engine()
    context = small.context(engine)
    assert context.execute_async_v3(7)
    assert np.isfinite(small.result).all()
    assert small.result.any()


def test_a_file_without_a_weight_is_refused(trt, refittable, tmp_path):
    small, engine, _ = refittable
    bare = onnx.load(small.folder / "small.onnx")
    del bare.graph.initializer[0]
    onnx.save(bare, tmp_path / "bare.onnx")
    parser = trt.OnnxParserRefitter(trt.Refitter(engine, small.log), small.log)
    assert not parser.refit_from_file(str(tmp_path / "bare.onnx"))
    assert parser.get_error(0).desc() == "Failed to refit all the weights."


def test_only_marked_weights_of_an_individual_refit(trt, small):
    small.config.set_flag(trt.BuilderFlag.REFIT_INDIVIDUAL)
    assert small.parser.parse_from_file(str(model(small.folder)))
    assert small.network.mark_weights_refittable("out.weight")
    assert not small.network.mark_weights_refittable("nothing")
    profile = small.builder.create_optimization_profile()
    profile.set_shape("image", *RANGES["image"])
    small.config.add_optimization_profile(profile)
    engine = small.engine(small.builder.build_serialized_network(small.network, small.config))
    assert trt.Refitter(engine, small.log).get_all_weights() == ["out.weight"]
