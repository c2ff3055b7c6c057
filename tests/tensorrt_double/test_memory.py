"""Device memory, captured runs and streamed weights: what is shared, what is refused, what spoils a result."""

import gc
import threading

import numpy as np
import onnxruntime
import pytest


@pytest.fixture
def ready(small):
    """(session, engine, context) that can run."""
    engine = small.engine()
    return small, engine, small.context(engine)


def expected(small):
    session = onnxruntime.InferenceSession(small.folder / "small.onnx", providers=["CPUExecutionProvider"])
    return session.run(None, {"image": small.image, "scale": small.scale})[0]


def test_device_memory_must_be_set_and_large_enough_and_aligned(ready):
    small, engine, _ = ready
    block, small.block = small.block, np.zeros(engine.device_memory_size_v2 + 512, np.uint8)
    for address, size in ((small.aligned + 8, engine.device_memory_size_v2), (small.aligned, 256)):
        context = small.context(engine)
        context.set_device_memory(address, size)
        assert "setDeviceMemory" in small.errors[-1]
    bare = engine.create_execution_context(small.trt.ExecutionContextAllocationStrategy.USER_MANAGED)
    assert bare.set_input_shape("image", (2, 4, 8, 8))
    for name in ("image", "scale", "result"):
        bare.set_tensor_address(name, getattr(small, name).ctypes.data)
    assert not bare.execute_async_v3(7)
    del block


def test_a_context_of_its_own_memory_needs_none(small):
    engine = small.engine()
    context = engine.create_execution_context()
    small.context(engine)
    assert context.set_input_shape("image", (2, 4, 8, 8))
    for name in ("image", "scale", "result"):
        context.set_tensor_address(name, getattr(small, name).ctypes.data)
    assert context.execute_async_v3(7)


def test_one_context_in_two_threads_spoils_the_result(ready, monkeypatch):
    small, engine, context = ready
    inside, go = threading.Event(), threading.Event()
    run = engine._executor.run

    def slow(*arguments):
        inside.set()
        go.wait(5)
        run(*arguments)

    monkeypatch.setattr(engine._executor, "run", slow)
    thread = threading.Thread(target=context.execute_async_v3, args=(7,))
    thread.start()
    inside.wait(5)
    assert not context.execute_async_v3(7)
    go.set()
    thread.join()
    assert "used by two threads" in small.errors[-1]


def test_two_contexts_in_one_block_at_once_spoil_the_result(ready, monkeypatch):
    small, engine, context = ready
    run = engine._executor.run

    def overlapping(*arguments):
        monkeypatch.setattr(engine._executor, "run", run)
        other = engine.create_execution_context(small.trt.ExecutionContextAllocationStrategy.USER_MANAGED)
        assert other.set_input_shape("image", (2, 4, 8, 8))
        for name in ("image", "scale", "result"):
            other.set_tensor_address(name, getattr(small, name).ctypes.data)
        other.set_device_memory(small.aligned, engine.device_memory_size_v2)
        assert other.execute_async_v3(8)
        run(*arguments)

    monkeypatch.setattr(engine._executor, "run", overlapping)
    assert context.execute_async_v3(7)
    assert np.isnan(small.result).all()


# ------------------------------------------------------------------------------------ graphs


def test_a_capture_replays_with_the_addresses_of_its_time(ready):
    from tensorrt import _capture

    small, _, context = ready
    assert context.execute_async_v3(7)
    small.result[:] = np.nan
    _capture.begin()
    assert context.execute_async_v3(7)
    replay = _capture.end()
    assert np.isnan(small.result).all()
    other = np.zeros_like(small.result)
    context.set_tensor_address("result", other.ctypes.data)
    replay()
    np.testing.assert_allclose(small.result, expected(small), rtol=1e-5, atol=1e-6)
    assert not other.any()


def test_a_capture_needs_a_run_before(ready):
    from tensorrt import _capture

    small, _, context = ready
    _capture.begin()
    assert not context.execute_async_v3(7)
    _capture.end()
    assert "isStreamCapturing" in small.errors[-1]


# ------------------------------------------------------------------------------------ weight streaming


def test_the_budget_is_set_before_contexts(trt, small):
    small.config.set_flag(trt.BuilderFlag.WEIGHT_STREAMING)
    engine = small.engine()
    total = engine.streamable_weights_size
    assert engine.weight_streaming_budget_v2 == total > 0
    memory = engine.device_memory_size_v2
    engine.weight_streaming_budget_v2 = 0
    assert engine.weight_streaming_budget_v2 == 0
    assert engine.device_memory_size_v2 > memory
    context = engine.create_execution_context()
    engine.weight_streaming_budget_v2 = total
    assert engine.weight_streaming_budget_v2 == 0
    assert "has no active context" in small.errors[-1]
    del context
    gc.collect()
    engine.weight_streaming_budget_v2 = total
    assert engine.weight_streaming_budget_v2 == total


def test_without_the_flag_there_is_no_budget(small):
    engine = small.engine()
    engine.weight_streaming_budget_v2 = 10
    assert engine.weight_streaming_budget_v2 == engine.streamable_weights_size == 0
