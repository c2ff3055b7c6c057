"""Streams, graphs, memory and events on a real GPU: the engine is a stand-in, what it enqueues are kernels of torch.

It reads and writes the addresses it is given on the stream it is given, waits first, and passes everything through the
shared activation block: work that is out of order, or a graph that is stale, gives other numbers.
"""

import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from enum import Enum
from types import ModuleType, SimpleNamespace

import pytest
import torch

from sdtrt.engines.backends.tensorrt import cuda
from sdtrt.engines.backends.tensorrt.error_table import ErrorContext
from sdtrt.engines.backends.tensorrt.options import TrtOptions
from sdtrt.engines.backends.tensorrt.running import stream_memory
from sdtrt.engines.backends.tensorrt.running.session import Session
from sdtrt.system.nvml import ClockSampler

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")]
WIDTH, MOST = 4096, 64
CYCLES = 300_000  # about 0.2 ms


def view(address, shape):
    """A tensor on memory that torch knows only by address."""
    facts = {"shape": shape, "typestr": "<f4", "data": (address, False), "version": 3, "strides": None}
    return torch.as_tensor(SimpleNamespace(__cuda_array_interface__=facts), device="cuda")


class Context:
    """y = 2 x + 1, by way of the activation block."""

    def set_optimization_profile_async(self, index, stream):
        return True

    def set_input_shape(self, name, shape):
        self.shape = tuple(shape)
        return True

    def infer_shapes(self):
        return []

    def get_tensor_shape(self, name):
        return self.shape

    def set_device_memory(self, address, size):
        self.block = address

    def set_tensor_address(self, name, address):
        setattr(self, name, address)
        return True

    def execute_async_v3(self, handle):
        with torch.cuda.stream(torch.cuda.ExternalStream(handle)):
            block = view(self.block, self.shape)
            block.copy_(view(self.x, self.shape))
            torch.cuda._sleep(CYCLES)
            block.mul_(2).add_(1)
            view(self.y, self.shape).copy_(block)
        return True


@pytest.fixture
def session(monkeypatch):
    module = ModuleType("tensorrt")
    module.TensorIOMode = Enum("TensorIOMode", "INPUT OUTPUT")
    module.DataType = Enum("DataType", "FLOAT HALF BF16 INT64 INT32 INT8 UINT8 BOOL")
    module.ExecutionContextAllocationStrategy = Enum("Strategy", "USER_MANAGED")
    monkeypatch.setitem(sys.modules, "tensorrt", module)
    modes = {"x": module.TensorIOMode.INPUT, "y": module.TensorIOMode.OUTPUT}
    engine = SimpleNamespace(
        num_io_tensors=2,
        num_optimization_profiles=1,
        device_memory_size_v2=MOST * WIDTH * 4,
        get_device_memory_size_for_profile_v2=lambda index: MOST * WIDTH * 4,
        streamable_weights_size=0,
        weight_streaming_budget_v2=0,
        get_tensor_name=lambda i: "xy"[i],
        get_tensor_mode=modes.__getitem__,
        get_tensor_dtype=lambda name: module.DataType.FLOAT,
        get_tensor_shape=lambda name: (-1, WIDTH),
        get_tensor_profile_shape=lambda name, index: [(1, WIDTH), (2, WIDTH), (MOST, WIDTH)],
        create_execution_context=lambda strategy: Context(),
    )
    made = Session(engine, cuda.runtime.device(0), TrtOptions(cuda_graphs=3), ErrorContext("x", "r"))
    yield made
    made.close()


def check(session, rows, calls=6):
    """Chains of calls, each on the last one's output, with inputs that die at once."""
    x = torch.randn(rows, WIDTH, device="cuda")
    expected = x.clone()
    for _ in range(calls):
        x = session.run({"x": x + 0})["y"]
        expected = expected * 2 + 1
    assert torch.equal(x, expected)


def test_chains_of_calls_are_in_order(session):
    for rows in (2, 4, 2, 8, 16, 2, 64, 4):
        check(session, rows)
    found = session.stats.as_json()
    assert found["replayed"] > 10
    assert found["refused"] == {}


def test_outputs_that_are_kept_are_not_written_again(session):
    x = torch.randn(8, WIDTH, device="cuda")
    kept = [session.run({"x": x + n})["y"] for n in range(20)]
    assert all(torch.equal(y, (x + n) * 2 + 1) for n, y in enumerate(kept))


def test_a_caller_on_a_stream_of_its_own(session):
    with torch.cuda.stream(torch.cuda.Stream()):
        check(session, 8)


def test_threads_at_the_same_time(session):
    def work(seed):
        with torch.cuda.stream(torch.cuda.Stream()):
            check(session, 1 + seed % 5)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(work, range(48)))
    assert session.stats.as_json()["refused"] == {}


def test_a_larger_block_in_between(session):
    check(session, 8)
    larger = SimpleNamespace
    wanted = type("Larger", (larger,), {"__hash__": object.__hash__})()
    wanted.device, wanted.activation_bytes = session.device, session.activation_bytes * 3
    stream_memory.register(wanted)
    check(session, 8)
    assert session.stats.as_json()["captured"] >= 2


def test_a_capture_that_cuda_refuses_leaves_a_usable_engine(session, monkeypatch):
    plain = Context.execute_async_v3

    def forbidden(self, handle):
        if torch.cuda.is_current_stream_capturing():
            torch.cuda.synchronize()  # not allowed while a stream is captured
        return plain(self, handle)

    monkeypatch.setattr(Context, "execute_async_v3", forbidden)
    check(session, 8)
    assert session.stats.as_json()["captured"] == 0
    assert session.stats.as_json()["refused"]
    monkeypatch.setattr(Context, "execute_async_v3", plain)
    check(session, 4)
    assert session.stats.as_json()["captured"] == 1


def test_the_time_is_that_of_the_gpu(session):
    for _ in range(5):
        session.run({"x": torch.zeros(2, WIDTH, device="cuda")})
    assert 0.05 < session.timer.total_ms() / 5 < 50


def test_a_thread_that_ends_gives_its_memory_back(session):
    thread = threading.Thread(target=check, args=(session, 8))
    thread.start()
    thread.join()
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    for _ in range(3):
        thread = threading.Thread(target=check, args=(session, 8))
        thread.start()
        thread.join()
    assert torch.cuda.memory_allocated() <= before + 2 * session.activation_bytes


def test_the_gpu_is_described_and_its_clocks_are_read(session):
    device = cuda.runtime.describe(0)
    assert device.name
    assert float(device.sm) >= 7
    with ClockSampler(device.uuid) as clocks:
        for _ in range(50):
            session.run({"x": torch.zeros(64, WIDTH, device="cuda")})
        torch.cuda.synchronize()
    if clocks._handle is not None:
        assert clocks.metadata()["SM Clock During Runs (MHz)"][2] > 0
