"""Building: in a process of its own, whatever becomes of it."""

import json
import os
import signal
import subprocess
import sys
import threading

import pytest
from trt import bindings, small

from sdtrt.engines.backends.tensorrt.building import isolated_build, timing_cache
from sdtrt.engines.backends.tensorrt.building.build_messages import BuildJob
from sdtrt.engines.backends.tensorrt.building.build_progress import Phases
from sdtrt.engines.backends.tensorrt.cuda import Device
from sdtrt.engines.backends.tensorrt.error_table import ErrorContext
from sdtrt.engines.backends.tensorrt.options import TrtOptions
from sdtrt.engines.backends.tensorrt.running.plan_file import read_version
from sdtrt.errors import BuildError

# What is about processes and files, not about TensorRT.
newest_only = pytest.mark.parametrize("release", [max(bindings.RELEASES)], indirect=True)


def test_a_plan_of_this_version_is_written(build, double):
    assert ".".join(map(str, read_version(build(), "x"))) == double


@newest_only
def test_progress_rises_and_names_what_is_done(build, monkeypatch):
    monkeypatch.setenv("TENSORRT_DOUBLE_BUILD_SECONDS", "1")
    seen = []
    build(progress=lambda label, share: seen.append((label, share)))
    shares = [share for _, share in seen]
    assert len(seen) > 2
    assert shares == sorted(shares)
    assert all(0 <= share <= 1 for share in shares)
    assert all(label for label, _ in seen)


@pytest.mark.parametrize(
    "options",
    [
        {"workspace_mib": 64, "optimization_level": 5, "tiling": "full", "aux_streams": 2},
        {"aux_streams": None, "tf32": False, "hardware_compatibility": "ampere_plus"},
        {"weight_streaming": True, "refit": "all"},
        {"refit": "identical", "hardware_compatibility": "same_compute_capability"},
        {"version_compatible": True},
        {"strip_plan": True},
    ],
    ids=str,
)
def test_all_options_are_taken(build, options):
    assert build(**options).stat().st_size > 100


@pytest.mark.parametrize(
    ("fault", "slug"),
    [("build-crash", "build-crashed"), ("no-implementation", "build-no-kernel"), ("out-of-memory", "gpu-memory")],
)
def test_a_builder_that_fails_or_dies_is_an_error_here(build, monkeypatch, fault, slug):
    monkeypatch.setenv("TENSORRT_DOUBLE_FAULTS", fault)
    with pytest.raises(BuildError) as caught:
        build()
    assert caught.value.slug == slug
    assert caught.value.received
    assert caught.value.hint


def test_a_file_that_is_no_onnx_names_the_parser(build, tmp_path):
    (tmp_path / "x.onnx").write_bytes(b"nothing")
    with pytest.raises(BuildError) as caught:
        build(path=tmp_path / "x.onnx")
    assert caught.value.slug.startswith(("onnx", "build-parse"))


def test_an_operator_that_the_parser_does_not_know_is_named(build, tmp_path):
    with pytest.raises(BuildError) as caught:
        build(path=small.model(tmp_path, operator="Det"))
    assert caught.value.slug == "onnx-operator"
    assert "Det" in caught.value.received


def test_an_input_without_a_range_is_named(build):
    with pytest.raises(BuildError, match="image") as caught:
        build(profiles=({"scale": ((1,), (1,), (1,))},))
    assert caught.value.slug == "profile-missing"


def test_a_profile_that_contradicts_the_graph_is_refused(build):
    with pytest.raises(BuildError) as caught:
        build(profiles=({"image": ((1, 5, 4, 4), (2, 5, 8, 8), (4, 5, 16, 16))},))
    assert caught.value.slug.startswith(("profile", "build-profile"))


def interrupt(*_):
    raise KeyboardInterrupt


def children():
    out = subprocess.run(["ps", "-o", "pid=,args=", "--ppid", str(os.getpid())], capture_output=True, text=True).stdout
    return [line for line in out.splitlines() if "tensorrt.building.build_process" in line]


@newest_only
def test_an_interrupt_stops_the_builder(build, monkeypatch, tmp_path):
    monkeypatch.setenv("TENSORRT_DOUBLE_BUILD_SECONDS", "20")  # longer than it is waited for
    killed, kill = [], subprocess.Popen.kill
    monkeypatch.setattr(subprocess.Popen, "kill", lambda process: killed.append(process.args) or kill(process))
    with pytest.raises(KeyboardInterrupt):
        build(progress=interrupt)
    assert not killed
    assert not children()
    assert not list(tmp_path.glob("*.plan*"))


@newest_only
def test_a_builder_that_does_not_listen_is_ended(build, monkeypatch):
    monkeypatch.setenv("TENSORRT_DOUBLE_BUILD_SECONDS", "5")
    monkeypatch.setattr(isolated_build, "GRACE_SECONDS", 0.0)
    with pytest.raises(KeyboardInterrupt):
        build(progress=interrupt)
    assert not children()


@newest_only
@pytest.mark.usefixtures("double")
def test_a_builder_whose_caller_is_gone_stops(onnx, tmp_path, monkeypatch):
    monkeypatch.setenv("TENSORRT_DOUBLE_BUILD_SECONDS", "5")
    job = BuildJob(onnx=str(onnx), plan=str(tmp_path / "x.plan"), profiles=(small.RANGES,), options=TrtOptions())
    process = subprocess.Popen(
        [sys.executable, "-m", "sdtrt.engines.backends.tensorrt.building.build_process"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=isolated_build._process_environment(0),
    )
    process.stdin.write(job.model_dump_json() + "\n")
    process.stdin.flush()
    assert "progress" in process.stdout.readline()
    process.stdin.close()
    process.stdout.close()
    assert process.wait(timeout=20) != 0
    assert not (tmp_path / "x.plan").exists()


@newest_only
def test_what_a_library_prints_does_not_disturb(build, monkeypatch, tmp_path):
    (tmp_path / "sitecustomize.py").write_text("print('hello from a library', flush=True)\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert build().exists()


@pytest.mark.parametrize(
    ("visible", "gpu", "expected"),
    [(None, 0, "0"), (None, 1, "1"), ("2,3", 1, "3"), ("GPU-ab", 0, "GPU-ab"), ("", 0, "0")],
)
def test_the_builder_sees_the_one_gpu_that_was_chosen(monkeypatch, visible, gpu, expected):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert isolated_build._process_environment(gpu)["CUDA_VISIBLE_DEVICES"] == expected


# ---------------------------------------------------------------------------------------------- timing cache


@newest_only
def test_the_timing_cache_is_kept_and_merged(build, tmp_path):
    path = tmp_path / "cache" / "x.cache"
    build(timing_cache=str(path))
    first = path.read_bytes()
    assert build.notes == []
    build(timing_cache=str(path), path=small.model(tmp_path, operator="Relu"))
    assert len(path.read_bytes()) > len(first) > 0
    assert build.notes == []


def test_a_timing_cache_that_is_refused_starts_empty_and_says_so(build, tmp_path):
    path = tmp_path / "x.cache"
    path.write_bytes(b"not a cache")
    assert build(timing_cache=str(path)).exists()
    assert any("was refused" in note for note in build.notes)
    build(timing_cache=str(path))
    assert not any("was refused" in note for note in build.notes)


@newest_only
def test_a_timing_cache_that_cannot_be_written_costs_no_engine(build, tmp_path):
    (tmp_path / "file").write_text("")
    assert build(timing_cache=str(tmp_path / "file" / "x.cache")).exists()
    assert any("was not kept" in note for note in build.notes)


@newest_only
def test_builds_at_the_same_time_both_keep_their_timings(build, onnx, tmp_path):
    path = tmp_path / "x.cache"
    other = small.model(tmp_path, operator="Relu")
    jobs = [
        BuildJob(
            onnx=str(file),
            plan=str(tmp_path / f"{index}.plan"),
            profiles=(small.RANGES,),
            options=TrtOptions(),
            timing_cache=str(path),
        )
        for index, file in enumerate((onnx, other))
    ]
    threads = [
        threading.Thread(
            target=isolated_build.build_in_subprocess, args=(j, ErrorContext("small", "r"), lambda *_: None)
        )
        for j in jobs
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    both = path.read_bytes()
    for file in (onnx, other):
        build(timing_cache=str(path), path=file)
    assert len(path.read_bytes()) == len(both)


def test_the_cache_is_that_of_one_version_and_gpu(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    names = {
        timing_cache.cache_path(None, version, Device(gpu, sm, 1, 1))
        for version in ("10.16.1.11", "11.4.0.106")
        for gpu, sm in (("NVIDIA H100 PCIe", "9.0"), ("NVIDIA L4", "8.9"))
    }
    assert len(names) == 4
    assert all(path.parent == tmp_path / "sdtrt" / "timing" for path in names)


# ---------------------------------------------------------------------------------------------- phases


def test_phases_nest_and_never_fall():
    phases = Phases()
    phases.start("root", None, 4)
    phases.step("root", 0)
    phases.start("inner", "root", 10)
    phases.step("inner", 4)
    assert phases.state() == ("inner 5/10", pytest.approx((1 + 0.5) / 4))
    phases.finish("inner")
    assert phases.state()[1] == pytest.approx((1 + 0.5) / 4)
    phases.step("root", 3)
    phases.finish("root")
    assert phases.state()[1] <= 1


def test_phases_that_name_each_other_as_parent_do_not_loop():
    phases = Phases()
    phases.start("a", "b", 2)
    phases.start("b", "a", 2)
    assert 0 <= phases.state()[1] <= 1


def test_reports_are_short_lines():
    job = BuildJob(onnx="a", plan="b", profiles=(small.RANGES,), options=TrtOptions())
    assert BuildJob.model_validate_json(job.model_dump_json()) == job
    assert "\n" not in json.dumps(job.model_dump_json())


def test_an_ending_is_named():
    assert isolated_build._describe_exit(-signal.SIGSEGV) == "SIGSEGV"
    assert isolated_build._describe_exit(3) == "exit code 3"
