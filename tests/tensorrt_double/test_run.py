"""Loading and running: what the double computes, and what it refuses with NVIDIA's words."""

import numpy as np
import onnxruntime
import pytest
from trt import use
from trt.small import RANGES, Session


@pytest.fixture
def ready(small):
    """(session, engine, context) that can run."""
    engine = small.engine()
    return small, engine, small.context(engine)


def expected(small):
    session = onnxruntime.InferenceSession(small.folder / "small.onnx", providers=["CPUExecutionProvider"])
    return session.run(None, {"image": small.image, "scale": small.scale})[0]


def reader(trt, data, seek=True):
    class Reader(trt.IStreamReaderV2):
        def __init__(self):
            trt.IStreamReaderV2.__init__(self)
            self.at = 0

        def read(self, num_bytes, stream):
            part = data[self.at : self.at + num_bytes]
            self.at += len(part)
            return part

        def seek(self, offset, where):
            assert where == trt.SeekPosition.SET
            self.at = offset
            return seek

    return Reader()


# ------------------------------------------------------------------------------------ loading


def test_bytes_and_a_stream_give_the_same_engine(trt, small):
    plan = bytes(small.plan())
    for source in (plan, reader(trt, plan)):
        engine = small.engine(source)
        assert [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)] == ["image", "scale", "result"]
        assert tuple(engine.get_tensor_shape("image")) == (-1, 4, -1, -1)
        assert [tuple(s) for s in engine.get_tensor_profile_shape("image", 0)] == list(RANGES["image"])
        assert engine.get_tensor_dtype("result") == trt.DataType.FLOAT


def test_a_seek_that_answers_zero_is_a_failure(trt, small):
    assert small.engine(reader(trt, bytes(small.plan()), seek=0)) is None


@pytest.mark.parametrize(
    ("damage", "text"),
    [
        (lambda d: b"", "Trying to load an engine created with incompatible serialization version"),
        (lambda d: b"text" + d[4:], "kEXPECTED_MAGIC_TAG"),
        (lambda d: d[: len(d) // 2], "Serialization assertion"),
        (lambda d: d[:-1] + bytes([d[-1] ^ 1]), "Serialization assertion"),
    ],
)
def test_a_damaged_plan_is_none(small, damage, text):
    assert small.engine(damage(bytes(small.plan()))) is None
    assert text in small.errors[-1]


def test_a_plan_of_another_release_is_none(trt, small, apis, cache):
    plan = bytes(small.plan())
    other = next(r for r in apis if r != trt.__version__)
    with use.tensorrt(other, cache):
        import tensorrt

        there = Session(tensorrt, small.folder)
        assert there.engine(plan) is None
    assert "Version tag does not match" in there.errors[-1]


@pytest.mark.parametrize(
    ("level", "gpu", "loads"),
    [
        ("NONE", "Double GPU:8.9", True),
        ("NONE", "Double GPU:9.0", False),
        ("SAME_COMPUTE_CAPABILITY", "Other GPU:8.9", True),
        ("SAME_COMPUTE_CAPABILITY", "Other GPU:9.0", False),
        ("AMPERE_PLUS", "Other GPU:9.0", True),
    ],
)
def test_a_plan_of_another_gpu(trt, small, monkeypatch, level, gpu, loads):
    plan = small.plan(hardware_compatibility_level=getattr(trt.HardwareCompatibilityLevel, level))
    monkeypatch.setenv("TENSORRT_DOUBLE_GPU", gpu)
    assert (small.engine(plan) is not None) == loads
    if not loads:
        assert "expecting compute 9.0 got compute 8.9, please rebuild" in small.errors[-1]


def test_a_version_compatible_plan_carries_code(trt, small):
    small.config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
    plan = small.plan()
    assert small.engine(plan) is None
    small.runtime.engine_host_code_allowed = True
    assert small.runtime.deserialize_cuda_engine(plan) is not None


# ------------------------------------------------------------------------------------ running


def test_computes_what_the_file_says(ready):
    small, _, context = ready
    assert context.execute_async_v3(7)
    np.testing.assert_allclose(small.result, expected(small), rtol=1e-5, atol=1e-6)


def test_another_shape_in_the_same_context(ready):
    small, engine, context = ready
    assert context.execute_async_v3(7)
    again = small.context(engine, (1, 4, 16, 16))
    assert again.execute_async_v3(7)
    np.testing.assert_allclose(small.result, expected(small), rtol=1e-5, atol=1e-6)


def test_the_default_stream_is_warned_of(ready):
    small, _, context = ready
    assert context.execute_async_v3(0)
    assert "Using default stream in enqueueV3()" in small.warnings[-1]


@pytest.mark.parametrize(
    ("name", "shape", "text"),
    [
        ("image", (8, 4, 8, 8), "satisfyProfile. Runtime dimension does not satisfy any optimization profile."),
        ("image", (1, 4, 2, 8), "satisfyProfile"),
        ("image", (1, 3, 8, 8), "Static dimension mismatch while setting input shape for image"),
        ("image", (1, 4, 8), "Static dimension mismatch"),
        ("scale", (2,), "Static dimension mismatch"),
        ("picture", (1,), "Given invalid tensor name: picture"),
    ],
)
def test_a_wrong_shape_is_false(ready, name, shape, text):
    small, _, context = ready
    assert not context.set_input_shape(name, shape)
    assert text in small.errors[-1]


def test_shapes_must_be_set(trt, small):
    engine = small.engine()
    context = engine.create_execution_context()
    assert context.infer_shapes() == ["image"]
    assert tuple(context.get_tensor_shape("result")) == (-1, -1, 8)
    assert not context.execute_async_v3(7)
    assert "Not all shapes are specified" in small.errors[-1]


@pytest.mark.parametrize(("name", "text"), [("image", "input tensor image"), ("result", "output tensor result")])
def test_addresses_must_be_set(ready, name, text):
    small, _, context = ready
    assert context.set_tensor_address(name, 0)
    assert not context.execute_async_v3(7)
    assert f"Address is not set for {text}. Call set" in small.errors[-1]


def test_switching_the_profile_forgets_the_shapes(small):
    other = {"image": ((1, 4, 32, 32), (1, 4, 32, 32), (1, 4, 32, 32))}
    engine = small.engine(profiles=(RANGES, other))
    context = small.context(engine)
    assert context.set_optimization_profile_async(1, 7)
    assert context.infer_shapes() == ["image"]
    assert not context.set_input_shape("image", (2, 4, 8, 8))
    with pytest.raises(RuntimeError, match="set optimization profile async"):
        context.set_optimization_profile_async(2, 7)


@pytest.mark.parametrize("fault", ["nan", "rows-differ", "enqueue-fails", "no-context"])
def test_faults(ready, monkeypatch, fault):
    small, engine, context = ready
    monkeypatch.setenv("TENSORRT_DOUBLE_FAULTS", fault)
    if fault == "no-context":
        assert engine.create_execution_context() is None
        return
    ran = context.execute_async_v3(7)
    assert ran == (fault != "enqueue-fails")
    assert not ran or not np.allclose(small.result, expected(small))
