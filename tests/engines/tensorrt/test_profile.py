"""Profiling: the plan and the files of trtexec and TREx say the same, for a session and for any plan file."""

import json
import sys
from statistics import median

import pytest
from trt import small

from sdtrt.engines.backends.tensorrt import engine
from sdtrt.engines.backends.tensorrt.cuda import Device
from sdtrt.engines.backends.tensorrt.profiling import layer_times, trtexec_files
from sdtrt.errors import ConfigError, EngineError, ShapeError
from sdtrt.plan.layers import Plan
from sdtrt.system.nvml import ClockSampler

ROLES = ("graph", "profile", "profile.metadata", "timing")
RUNS = 4
DEVICE = Device("NVIDIA H100 PCIe", "9.0", 114, 80 << 30)


@pytest.fixture
def profiled(build, tmp_path):
    """A plan file's plan, and its files as parsed JSON."""
    path = build()
    out = tmp_path / "out"
    plan = engine.profile_plan_file(path, {"image": (2, 4, 8, 8)}, RUNS, out)
    return plan, {role: json.loads((out / f"{path.name}.{role}.json").read_text()) for role in ROLES}


def test_the_layers_of_the_plan_are_those_of_the_inspector(profiled, double):
    plan, files = profiled
    assert {layer["Name"] for layer in files["graph"]["Layers"]} <= {layer.name for layer in plan.layers}
    assert ("I/O Tensors" in files["graph"]) == double.startswith("11")
    assert plan.shapes == {"image": (2, 4, 8, 8), "scale": (1,)}
    assert -1 not in {d for layer in plan.layers for t in layer.inputs for d in t.shape or ()}
    assert (plan.backend, plan.backend_version, plan.component) == ("tensorrt", double, "engine")


def test_every_timed_layer_has_a_time_for_each_run(profiled):
    plan, files = profiled
    count, *records = files["profile"]
    assert count == {"count": RUNS}
    timed = {layer.name: layer for layer in plan.layers if layer.times_ms is not None}
    assert len(timed) > 0.8 * len(plan.layers)
    for record in records:
        assert set(record) == {"name", "timeMs", "averageMs", "medianMs", "percentage"}
        times = timed[record["name"]].times_ms
        assert len(times) == RUNS
        assert sum(times) == pytest.approx(record["timeMs"])
        assert median(times) == pytest.approx(record["medianMs"])
    assert sum(r["percentage"] for r in records) == pytest.approx(100)


def test_whole_runs_are_timed_apart_from_layers(profiled):
    plan, files = profiled
    assert len(files["timing"]) == len(plan.wall_times_ms) == plan.runs == RUNS
    assert [run["computeMs"] for run in files["timing"]] == pytest.approx(list(plan.wall_times_ms))
    for run in files["timing"]:
        assert run["endComputeMs"] - run["startComputeMs"] == pytest.approx(run["computeMs"])
        assert run["endEnqMs"] >= run["startEnqMs"] >= 0
    assert plan.metadata["cuda_graphs"]["captured"] == 1
    assert plan.metadata["cuda_graphs"]["replayed"] >= RUNS


def test_metadata_names_device_shapes_and_spread(profiled):
    _, files = profiled
    metadata = files["profile.metadata"]
    low, high, mean, middle, percentile = metadata["performance_summary"]["GPU Compute Time"]
    assert low <= middle <= percentile <= high
    assert low <= mean <= high
    assert metadata["inference_options"]["Input inference shapes"] == "image=2x4x8x8, scale=1"
    assert metadata["inference_options"]["CUDA Graph"] == "Enabled"
    assert metadata["device_information"]["Selected Device"] == "Double GPU"


def test_inputs_that_are_left_out_have_the_best_shape(build, tmp_path):
    plan = engine.profile_plan_file(build(), {}, 1, tmp_path / "out")
    assert plan.shapes["image"] == small.RANGES["image"][1]


def test_the_second_profile_is_profiled_where_only_it_fits(build, tmp_path):
    profiles = ({"image": ((1, 4, 4, 4),) * 3}, {"image": ((2, 4, 8, 8), (2, 4, 8, 8), (4, 4, 8, 8))})
    plan = engine.profile_plan_file(build(profiles), {"image": (3, 4, 8, 8)}, 2, tmp_path / "out")
    assert plan.shapes["image"] == (3, 4, 8, 8)
    assert sum(layer.times_ms is not None for layer in plan.layers) > 0.8 * len(plan.layers)


def test_an_unknown_input_is_refused(build, tmp_path):
    with pytest.raises(ConfigError) as caught:
        engine.profile_plan_file(build(), {"sample": (1, 4, 8, 8)}, 1, tmp_path / "out")
    assert "image 1x4x4x4 to 4x4x16x16" in caught.value.expected


def test_shapes_outside_are_refused(build, tmp_path):
    with pytest.raises(ShapeError):
        engine.profile_plan_file(build(), {"image": (9, 4, 8, 8)}, 1, tmp_path / "out")


def test_a_file_that_is_no_plan_is_refused(double, tmp_path):
    (tmp_path / "x.plan").write_bytes(b"nothing")
    with pytest.raises(EngineError, match="cannot be loaded"):
        engine.profile_plan_file(tmp_path / "x.plan", {}, 1, tmp_path / "out")


def test_layers_of_one_name_are_told_apart_by_their_order():
    seen = [[("a", 1.0), ("b", 2.0), ("a", 3.0)], [("a", 1.5), ("b", 2.5), ("a", 3.5)]]
    assert layer_times._times_by_layer(seen) == (("a", (1.0, 1.5)), ("b", (2.0, 2.5)), ("a", (3.0, 3.5)))


def measured(inspector, layers):
    run = layer_times.RunTimes(0.0, 0.1, 0.2, 1.2)
    return layer_times.EngineTimings(
        device=DEVICE,
        shapes={"x": (1, 4)},
        profile=0,
        runs=(run, run),
        layers=layers,
        inspector=json.dumps(inspector),
        clocks={"Throttle Reasons": ["power cap"]},
        host_seconds=0.01,
        graphs={"captured": 0, "replayed": 0, "plain": 3, "refused": {"reason": 1}},
    )


def test_two_layers_of_one_name_keep_their_own_times():
    layer = {"Name": "copy", "LayerType": "Reformat", "Inputs": [], "Outputs": []}
    found = measured({"Layers": [layer, layer], "Bindings": []}, (("copy", (1.0, 1.0)), ("copy", (5.0, 5.0))))
    plan = trtexec_files.to_plan(found, "x", "11", None, "engine.plan")
    assert [layer.times_ms for layer in plan.layers] == [(1.0, 1.0), (5.0, 5.0)]


def test_a_measured_name_that_the_inspector_does_not_list_is_kept():
    layer = {"Name": "conv", "LayerType": "correlation", "Inputs": [], "Outputs": []}
    found = measured({"Layers": [layer]}, (("conv", (1.0, 1.0)), ("Reformatting CopyNode for Input", (0.5, 0.5))))
    plan = trtexec_files.to_plan(found, "x", "11", None, "engine.plan")
    assert sum(layer.time_ms for layer in plan.layers) == pytest.approx(1.5)


def test_clocks_and_fallbacks_are_in_the_plan(tmp_path):
    layer = {"Name": "conv", "LayerType": "correlation", "Inputs": [], "Outputs": []}
    plan = trtexec_files.to_plan(measured({"Layers": [layer]}, (("conv", (1.0, 1.0)),)), "x", "11", tmp_path, "e")
    assert plan.metadata["device"]["Throttle Reasons"] == ["power cap"]
    assert plan.metadata["cuda_graphs"]["refused"] == {"reason": 1}
    plan.save(tmp_path / "plan.json")
    assert Plan.load(tmp_path / "plan.json") == plan
    assert {p.name for p in tmp_path.glob("e.*")} == {f"e.{role}.json" for role in ROLES}


# ---------------------------------------------------------------------------------------------- NVML


class Nvml:
    """What NVML answers for a GPU that meets its power cap in the middle."""

    NVMLError = type("NVMLError", (Exception,), {})
    NVML_CLOCK_SM, NVML_CLOCK_MEM, NVML_TEMPERATURE_GPU = 1, 2, 0

    def __init__(self, broken=False):
        self.samples, self.broken = 0, broken

    def nvmlInit(self):
        pass

    def nvmlSystemGetDriverVersion(self):
        return "590.10"

    def nvmlDeviceGetHandleByUUID(self, uuid):
        return uuid

    def nvmlDeviceGetMaxClockInfo(self, handle, kind):
        return 1980 if kind == self.NVML_CLOCK_SM else 2619

    def nvmlDeviceGetMemoryBusWidth(self, handle):
        if self.broken:
            raise self.NVMLError
        return 5120

    def nvmlDeviceGetClockInfo(self, handle, kind):
        self.samples += kind == self.NVML_CLOCK_SM
        return 1980 - 100 * (self.samples % 2) if kind == self.NVML_CLOCK_SM else 2619

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, handle):
        return 0x4 if self.samples == 2 else 0x1

    def nvmlDeviceGetTemperature(self, handle, sensor):
        return 60

    def nvmlDeviceGetPowerUsage(self, handle):
        return 345678


@pytest.fixture
def nvml(monkeypatch):
    """Put a stand-in in NVML's place."""

    def put(**how):
        made = Nvml(**how)
        monkeypatch.setitem(sys.modules, "pynvml", made)
        return made

    return put


def test_clocks_are_sampled_while_it_runs(nvml):
    driver = nvml()
    with ClockSampler("GPU-1") as clocks:
        while driver.samples < 3:
            pass
    facts = clocks.metadata()
    assert facts["SM Clock During Runs (MHz)"][0] == 1880
    assert facts["SM Clock During Runs (MHz)"][2] == 1980
    assert facts["Throttle Reasons"] == ["power cap"]
    assert facts["Memory Clock Rate"] == 2.619
    assert facts["Power (W)"] == 345.7


def test_a_gpu_that_does_not_tell_costs_no_profile(nvml):
    nvml(broken=True)
    with ClockSampler("GPU-1") as clocks:
        pass
    assert clocks.metadata() == {}


@pytest.mark.parametrize("uuid", [None, "GPU-1"])
def test_without_nvml_nothing_is_known(uuid, monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with ClockSampler(uuid) as clocks:
        pass
    assert clocks.metadata() == {}
