"""Parsing and building: what is refused, cached, reported and written."""

import threading

import onnx
import pytest
from trt.small import RANGES, model


def test_a_plan_starts_as_real_ones_do(trt, small):
    data = bytes(small.plan())
    assert data[:4] == b"ftrt"
    assert ".".join(map(str, data[24:28])) == trt.__version__


def test_host_memory_is_a_buffer_and_nothing_more(small, tmp_path):
    plan = small.plan()
    with (tmp_path / "plan").open("wb") as file:
        assert file.write(plan) == plan.nbytes
    with pytest.raises(TypeError):
        len(plan)
    with pytest.raises(AttributeError):
        plan.hex()


def test_an_unknown_operator_is_an_error_of_the_parser(small, tmp_path):
    assert not small.parser.parse_from_file(str(model(tmp_path, operator="Det")))
    error = small.parser.get_error(0)
    assert (error.node_operator(), error.node_name()) == ("Det", "/extra/Det")
    assert error.desc() == "No importer registered for op: Det"
    assert small.builder.build_serialized_network(small.network, small.config) is None
    assert "Network must have at least one output" in small.errors[-1]


def test_missing_weights_are_an_error_of_the_parser(small, tmp_path):
    loaded = onnx.load(model(tmp_path))
    onnx.save(loaded, tmp_path / "big.onnx", save_as_external_data=True, location="big.data", size_threshold=0)
    (tmp_path / "big.data").unlink()
    assert not small.parser.parse_from_file(str(tmp_path / "big.onnx"))
    assert "big" in small.parser.get_error(0).desc()


def test_a_dynamic_input_without_a_profile(small):
    assert small.plan(profiles=()) is None
    assert "no optimization profile has been defined" in small.errors[-1]


def test_a_profile_without_an_input(trt, small):
    assert small.plan(profiles=({"scale": ((1,), (1,), (1,))},)) is None
    assert "image: optimization profile is missing values for shape input" in small.errors[-1]


def test_a_profile_out_of_order(small):
    profile = small.builder.create_optimization_profile()
    with pytest.raises(RuntimeError, match="inconsistent with other shapes"):
        profile.set_shape("image", (2, 4, 8, 8), (1, 4, 8, 8), (4, 4, 8, 8))
    assert small.config.add_optimization_profile(profile) == -1


def test_a_profile_that_contradicts_the_network(small):
    assert small.plan(profiles=({"image": ((1, 3, 4, 4), (1, 3, 4, 4), (1, 3, 4, 4))},)) is None
    assert "does not match network definition" in small.errors[-1]


@pytest.mark.parametrize("fault", ["no-implementation", "out-of-memory"])
def test_faults(small, monkeypatch, fault):
    monkeypatch.setenv("TENSORRT_DOUBLE_FAULTS", fault)
    assert small.plan() is None
    assert "Could not find any implementation for node {ForeignNode[/conv/Conv" in small.errors[-1]


def test_refit_flags_exclude_each_other(trt, small):
    small.config.set_flag(trt.BuilderFlag.REFIT)
    small.config.set_flag(trt.BuilderFlag.REFIT_IDENTICAL)
    assert not small.config.get_flag(trt.BuilderFlag.REFIT)
    assert "mutually exclusive" in small.warnings[-1]


def test_a_setter_swallows_what_it_refuses(small):
    small.config.builder_optimization_level = 9
    assert small.config.builder_optimization_level == 3


def test_precision_flags_and_strong_typing_exclude_each_other(trt, small):
    if not hasattr(trt.BuilderFlag, "FP16"):
        pytest.skip("11 has no such flag")
    small.config.set_flag(trt.BuilderFlag.FP16)
    assert small.plan() is None
    assert "!config.getFlag(BuilderFlag::kFP16)" in small.errors[-1]


# ------------------------------------------------------------------------------------ timing cache


def test_a_timing_cache_fills_and_is_taken_back(small):
    cache = small.config.create_timing_cache(b"")
    empty = bytes(cache.serialize())
    assert small.config.set_timing_cache(cache, False)
    small.plan()
    assert len(bytes(cache.serialize())) > len(empty)
    assert small.config.set_timing_cache(small.config.create_timing_cache(cache.serialize()), False)


def test_a_timing_cache_of_another_gpu_is_refused(small, monkeypatch):
    cache = bytes(small.config.create_timing_cache(b"").serialize())
    monkeypatch.setenv("TENSORRT_DOUBLE_GPU", "Other GPU:9.0")
    foreign = small.config.create_timing_cache(cache)
    assert not small.config.set_timing_cache(foreign, False)
    assert "will not be used" in small.warnings[-1]
    assert not small.config.create_timing_cache(b"").combine(foreign, False)


def test_a_damaged_timing_cache_is_none(small):
    assert small.config.create_timing_cache(b"no cache") is None
    assert "Magic tag does not match" in small.errors[-1]


# ------------------------------------------------------------------------------------ progress


def monitor(trt, answer=lambda: True):
    class Monitor(trt.IProgressMonitor):
        def __init__(self):
            trt.IProgressMonitor.__init__(self)
            self.events, self.threads = [], set()

        def phase_start(self, phase_name, parent_phase, num_steps):
            self.events.append(("start", phase_name, parent_phase))
            self.threads.add(threading.get_ident())

        def step_complete(self, phase_name, step):
            self.events.append(("step", phase_name, step))
            return answer()

        def phase_finish(self, phase_name):
            self.events.append(("finish", phase_name, None))

    return Monitor()


def test_progress_comes_from_several_threads_and_nests(trt, small):
    watching = monitor(trt)
    assert small.plan(progress_monitor=watching) is not None
    assert len(watching.threads) == 2
    assert threading.get_ident() not in watching.threads
    started = {name: parent for kind, name, parent in watching.events if kind == "start"}
    assert started["Building engine"] is None
    assert started["Optimizing graph"] == "Building engine from subgraph"
    assert {e[1] for e in watching.events if e[0] == "finish"} == set(started)


def test_saying_no_cancels(trt, small):
    assert small.plan(progress_monitor=monitor(trt, lambda: False)) is None
    assert "cancelled" in small.errors[-1]


def test_an_exception_cancels(trt, small):
    def fail():
        raise ValueError("oh")

    assert small.plan(progress_monitor=monitor(trt, fail)) is None


def test_several_profiles(small):
    other = {"image": ((1, 4, 32, 32), (1, 4, 32, 32), (1, 4, 32, 32))}
    engine = small.engine(profiles=(RANGES, other))
    assert engine.num_optimization_profiles == 2
    assert [tuple(s) for s in engine.get_tensor_profile_shape("image", 1)] == [(1, 4, 32, 32)] * 3
    assert engine.device_memory_size_v2 == max(map(engine.get_device_memory_size_for_profile_v2, (0, 1)))
