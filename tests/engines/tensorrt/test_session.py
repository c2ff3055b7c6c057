"""Running a plan: right results from any thread, graphs that are never stale, and refusals that say why."""

import gc
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from trt import small

from sdtrt.engines.backends.tensorrt import cuda as trt_cuda
from sdtrt.engines.backends.tensorrt.error_table import ErrorContext
from sdtrt.engines.backends.tensorrt.options import TrtOptions
from sdtrt.engines.backends.tensorrt.running import deserialize, stream_memory
from sdtrt.engines.backends.tensorrt.running.session import STREAMED, Session
from sdtrt.errors import EngineError, ShapeError

CONTEXT = ErrorContext("small", "sdtrt build X")
TWO = (
    {"image": ((1, 4, 4, 4), (1, 4, 8, 8), (2, 4, 8, 8))},
    {"image": ((2, 4, 8, 8), (4, 4, 8, 8), (8, 4, 16, 16))},
)


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    """Engines that other tests left alive would have a say in the size of the block."""
    monkeypatch.setattr(stream_memory, "_engines", weakref.WeakSet())
    monkeypatch.setattr(stream_memory, "_stream_contexts", stream_memory._StreamContexts())


def tensors(batch=2, size=8, seed=0):
    """Inputs of the small network."""
    random = torch.Generator().manual_seed(seed)
    return {"image": torch.randn(batch, 4, size, size, generator=random), "scale": torch.ones(1)}


def result(session, **at):
    return session.run(tensors(**at))["result"]


def counts(session):
    found = session.stats.as_json()
    return found["captured"], found["replayed"], found["plain"]


@pytest.mark.parametrize("graphs", [0, 8])
def test_results_are_those_of_the_network(open_session, expected, graphs):
    session = open_session(cuda_graphs=graphs)
    for seed, (batch, size) in enumerate([(2, 8), (2, 8), (1, 4), (2, 8), (4, 16), (1, 4), (2, 8)]):
        given = tensors(batch, size, seed)
        torch.testing.assert_close(session.run(given)["result"], expected(given), rtol=1e-4, atol=1e-4)


def test_a_shape_is_captured_when_it_comes_again_and_replayed_from_then_on(open_session):
    session = open_session()
    seen = []
    for _ in range(4):
        result(session)
        seen.append(counts(session))
    assert seen == [(0, 0, 1), (1, 0, 2), (1, 1, 2), (1, 2, 2)]


def test_outputs_belong_to_the_caller(open_session):
    session = open_session()
    kept = [result(session, seed=seed) for seed in range(4)]
    copies = [k.clone() for k in kept]
    for seed in range(4, 8):
        result(session, seed=seed)
    assert all(torch.equal(a, b) for a, b in zip(kept, copies, strict=True))


def test_inputs_that_change_in_place_are_read_anew(open_session, expected):
    session = open_session()
    given = tensors()
    for _ in range(4):
        given["image"] += 1
        torch.testing.assert_close(session.run(given)["result"], expected(given), rtol=1e-4, atol=1e-4)


def test_the_least_recently_used_graph_is_given_up(open_session):
    session = open_session(cuda_graphs=2)
    for size in (4, 5, 6):
        for _ in range(2):
            result(session, size=size)
    assert len(session._thread_state().graphs) == 2
    before = counts(session)
    result(session, size=6)
    assert counts(session)[1] == before[1] + 1
    result(session, size=4)  # was given up, and is captured again at once
    assert counts(session)[0] == before[0] + 1


def test_a_larger_engine_takes_a_larger_block_and_the_graphs_are_made_anew(open_session, expected):
    session = open_session()
    for _ in range(3):
        result(session)
    old = weakref.ref(session._thread_state().stream_context.block())

    class Larger:
        device = session.device
        activation_bytes = session.activation_bytes * 4

    larger = Larger()
    stream_memory.register(larger)
    given = tensors(seed=5)
    torch.testing.assert_close(session.run(given)["result"], expected(given), rtol=1e-4, atol=1e-4)
    assert counts(session)[0] == 2
    assert session._thread_state().stream_context.block().size == larger.activation_bytes
    gc.collect()
    assert old() is None


def test_engines_of_a_thread_share_one_block_and_threads_do_not(open_session):
    first, second = open_session(), open_session()
    for session in (first, second):
        result(session)
    assert first._thread_state().context.block is second._thread_state().context.block
    found = []

    def other():
        result(first)
        found.append(first._thread_state().context.block)

    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    assert found[0] is not first._thread_state().context.block


def test_after_a_refit_no_old_graph_is_replayed(open_session):
    session = open_session()
    for _ in range(3):
        result(session)
    session.weights_changed()
    result(session)
    assert counts(session) == (2, 1, 3)


@pytest.mark.parametrize("fault", ["not-capturable", "capture-fails"])
def test_a_capture_that_fails_falls_back_and_is_counted(open_session, expected, monkeypatch, fault):
    session = open_session()
    stream = session._thread_state().stream_context.stream
    monkeypatch.setenv("TENSORRT_DOUBLE_FAULTS", fault)
    for seed in range(4):
        given = tensors(seed=seed)
        torch.testing.assert_close(session.run(given)["result"], expected(given), rtol=1e-4, atol=1e-4)
    assert counts(session) == (0, 0, 4)
    ((reason, times),) = session.stats.as_json()["refused"].items()
    assert times == 1
    assert reason in str(session.stats)
    # CUDA may leave a stream unusable after it: work goes on on another.
    assert (session._thread_state().stream_context.stream is not stream) == (fault == "capture-fails")


def test_without_memory_for_a_graph_the_call_still_runs(open_session, expected, monkeypatch):
    session = open_session()
    given = tensors()
    session.run(given)
    monkeypatch.setenv("TENSORRT_DOUBLE_FAULTS", "no-context")
    for _ in range(3):
        torch.testing.assert_close(session.run(given)["result"], expected(given), rtol=1e-4, atol=1e-4)
    assert counts(session) == (0, 0, 4)
    assert len(session.stats.as_json()["refused"]) == 1


def test_weights_that_are_streamed_are_not_captured(open_session):
    session = open_session(weight_streaming=True, weight_budget_mib=0)
    for _ in range(3):
        result(session)
    assert counts(session) == (0, 0, 3)
    assert STREAMED in str(session.stats)


def test_weights_that_fit_are_captured(open_session):
    session = open_session(weight_streaming=True)
    for _ in range(3):
        result(session)
    assert counts(session) == (1, 1, 2)


def test_a_budget_is_refused_by_an_engine_without_streamed_weights(build):
    plan = build()
    options = TrtOptions(weight_streaming=True, weight_budget_mib=1)
    deserialize.deserialize_plan(plan, options, CONTEXT)  # nothing to stream: a budget of nothing is kept


def test_the_nearest_profile_runs_whatever_ran_before(open_session, expected):
    session = open_session(TWO, cuda_graphs=0)
    chosen = []
    for batch in (1, 2, 4, 2, 1):
        given = tensors(batch)
        torch.testing.assert_close(session.run(given)["result"], expected(given), rtol=1e-4, atol=1e-4)
        chosen.append(session._thread_state().context.profile)
    assert chosen == [0, 0, 1, 0, 0]


def test_shapes_outside_all_profiles_are_refused_and_the_next_call_works(open_session, expected):
    session = open_session(TWO)
    with pytest.raises(ShapeError) as caught:
        result(session, batch=9)
    assert "[0] image 1x4x4x4 to 2x4x8x8" in caught.value.expected
    assert "[1] image 2x4x8x8 to 8x4x16x16" in caught.value.expected
    given = tensors(8, 16)
    torch.testing.assert_close(session.run(given)["result"], expected(given), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (lambda t: t | {"image": t["image"].half()}, "type of image"),
        (lambda t: t | {"scale": t["scale"].int()}, "type of scale"),
        (lambda t: t | {"image": t["image"].to("meta")}, "device of image"),
        (lambda t: t | {"image": t["image"].transpose(2, 3)}, "layout of image"),
        (lambda t: {"image": t["image"]}, "inputs"),
        (lambda t: t | {"more": t["scale"]}, "inputs"),
    ],
)
def test_wrong_tensors_are_refused_before_their_address_is_taken(open_session, change, field):
    session = open_session()
    with pytest.raises(EngineError, match=f"wrong {field}") as caught:
        session.run(change(tensors()))
    assert caught.value.slug == "engine-binding"
    assert caught.value.received is not None
    assert caught.value.expected is not None


def test_a_tensor_at_an_odd_address_is_taken(open_session, expected):
    session = open_session()
    whole = torch.randn(3, 4, 8, 8).flatten()
    given = {"image": whole[1 : 1 + 2 * 4 * 64].view(2, 4, 8, 8), "scale": torch.ones(3)[1:2]}
    for _ in range(3):
        torch.testing.assert_close(session.run(given)["result"], expected(given), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("graphs", [0, 4])
def test_threads_do_not_disturb_each_other(open_session, expected, graphs):
    session = open_session(cuda_graphs=graphs)
    given = [tensors(1 + i % 4, 8, seed=i) for i in range(64)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda g: session.run(g)["result"], given))
    for mine, inputs in zip(found, given, strict=True):
        torch.testing.assert_close(mine, expected(inputs), rtol=1e-4, atol=1e-4)


def test_work_is_on_a_stream_of_its_own_and_ordered_both_ways(open_session):
    session = open_session()
    cuda = trt_cuda.runtime
    session._thread_state().stream_context.renew_stream()  # the thread's was made for another test
    for _ in range(3):  # plain, capture, replay
        cuda.waits.clear()
        result(session)
        mine, caller = session._thread_state().stream_context.stream.cuda_stream, 0
        assert mine != caller
        assert cuda.waits[0] == (mine, caller)
        assert cuda.waits[-1] == (caller, mine)


def test_the_callers_stream_is_the_one_that_is_current(open_session):
    session = open_session()
    cuda = trt_cuda.runtime
    stream = cuda.new_stream(session.device, session)
    cuda.waits.clear()
    with cuda.use(stream):
        result(session)
    assert cuda.waits[-1] == (stream.cuda_stream, session._thread_state().stream_context.stream.cuda_stream)


def test_the_gpus_time_is_counted(open_session):
    session = open_session()
    for _ in range(300):
        result(session, size=4)
    assert session.timer.total_ms() > 0
    assert len(session.timer._pending) == 0
    before = session.timer.total_ms()
    result(session)
    assert session.timer.total_ms() > before


@pytest.mark.parametrize("fault", ["enqueue-fails", "no-context"])
def test_what_tensorrt_refuses_is_an_error(open_session, monkeypatch, fault):
    session = open_session()
    monkeypatch.setenv("TENSORRT_DOUBLE_FAULTS", fault)
    with pytest.raises(EngineError) as caught:
        result(session)
    assert caught.value.hint


def test_a_closed_engine_says_so_and_its_memory_is_given_back(open_session):
    session = open_session()
    for _ in range(3):
        result(session)
    stream_context = session._thread_state().stream_context
    engine = weakref.ref(session._thread_state().context)
    session.close()
    session.close()
    gc.collect()
    assert engine() is None
    assert stream_context._block is None
    with pytest.raises(EngineError, match="closed"):
        result(session)


# ---------------------------------------------------------------------------------------------- loading


def test_a_plan_that_is_cut_off_is_refused(build):
    plan = build()
    plan.write_bytes(plan.read_bytes()[: plan.stat().st_size // 2])
    with pytest.raises(EngineError, match="cannot be loaded"):
        deserialize.deserialize_plan(plan, TrtOptions(), CONTEXT)


def test_a_plan_of_another_version_is_refused_with_both(build, double):
    plan = build()
    data = bytearray(plan.read_bytes())
    data[24:28] = bytes([9, 3, 0, 1])
    plan.write_bytes(data)
    with pytest.raises(EngineError) as caught:
        deserialize.deserialize_plan(plan, TrtOptions(), CONTEXT)
    assert caught.value.slug == "plan-version"
    assert "9.3.0.1" in caught.value.received
    assert double in caught.value.received


def test_a_stripped_plan_takes_its_weights_from_the_onnx_file(build, onnx, expected):
    plan = build(strip_plan=True)
    options = TrtOptions(strip_plan=True)
    session = Session(deserialize.deserialize_plan(plan, options, CONTEXT, onnx), torch.device("cpu"), options, CONTEXT)
    given = tensors()
    torch.testing.assert_close(session.run(given)["result"], expected(given), rtol=1e-4, atol=1e-4)
    session.close()


def test_a_stripped_plan_without_its_weights_is_refused(build, tmp_path):
    plan = build(strip_plan=True)
    with pytest.raises(EngineError):
        deserialize.deserialize_plan(plan, TrtOptions(strip_plan=True), CONTEXT, tmp_path / "none.onnx")


def test_a_version_compatible_plan_is_loaded_when_it_may_run_code(build, expected):
    plan = build(version_compatible=True)
    options = TrtOptions(version_compatible=True)
    session = Session(deserialize.deserialize_plan(plan, options, CONTEXT), torch.device("cpu"), options, CONTEXT)
    given = tensors()
    torch.testing.assert_close(session.run(given)["result"], expected(given), rtol=1e-4, atol=1e-4)
    session.close()


def test_ranges_of_the_engine_are_those_it_was_built_for(open_session):
    assert [dict(p) for p in open_session(TWO).profiles] == [
        {"image": p["image"], "scale": ((1,), (1,), (1,))} for p in TWO
    ]
    assert small.RANGES["image"][0] == (1, 4, 4, 4)
