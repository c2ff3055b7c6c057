"""Plans of another TensorRT or GPU are refused before TensorRT is asked, with both sides and the command to rebuild."""

import pytest

from sdtrt.engines.backends.tensorrt.cuda import Device
from sdtrt.engines.backends.tensorrt.running.plan_file import (
    PlanRecord,
    check_gpu,
    check_version,
    parse_version,
    read_version,
)
from sdtrt.errors import EngineError

H100 = Device("NVIDIA H100 PCIe", "9.0", 114, 80 << 30)


def write(path, version=(10, 16, 1, 11), magic=b"ftrt"):
    path.write_bytes(magic + bytes(20) + bytes(version) + bytes(100))
    return path


def record(**changes):
    return PlanRecord(
        **{"tensorrt": "10.16.1.11", "gpu": H100.name, "sm": H100.sm, "onnx_sha256": "", "profiles": (), **changes}
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [("10.14.1.48.post1", (10, 14, 1, 48)), ("11.4.0.106", (11, 4, 0, 106)), ("11.4", (11, 4, 0, 0))],
)
def test_version_numbers(text, expected):
    assert parse_version(text) == expected


def test_the_header_tells_the_version(tmp_path):
    assert read_version(write(tmp_path / "x.plan", (11, 4, 0, 106)), "x") == (11, 4, 0, 106)


@pytest.mark.parametrize("content", [b"", b"ftrt", b"ONNX" + bytes(100)])
def test_what_is_no_plan_is_refused(tmp_path, content):
    (tmp_path / "x.plan").write_bytes(content)
    with pytest.raises(EngineError, match="cannot be loaded") as caught:
        read_version(tmp_path / "x.plan", "sdtrt build X")
    assert caught.value.slug == "engine-damaged"
    assert "sdtrt build X --force" in caught.value.hint


def test_a_missing_plan_is_refused(tmp_path):
    with pytest.raises(EngineError, match="No such file"):
        read_version(tmp_path / "none.plan", "x")


@pytest.mark.parametrize(
    ("plan", "runtime", "compatible", "accepted"),
    [
        ((10, 16, 1, 11), "10.16.1.11", False, True),
        ((10, 16, 1, 11), "10.16.1.11.post1", False, True),
        ((10, 16, 1, 11), "10.16.0.5", False, False),
        ((10, 12, 0, 36), "10.16.1.11", False, False),
        ((10, 12, 0, 36), "10.16.1.11", True, True),
        ((10, 16, 1, 11), "10.12.0.36", True, False),
        ((10, 16, 1, 11), "11.4.0.106", True, False),
    ],
)
def test_versions(tmp_path, plan, runtime, compatible, accepted):
    path = write(tmp_path / "x.plan", plan)
    if accepted:
        check_version(path, runtime, "sdtrt build X", compatible)
        return
    with pytest.raises(EngineError) as caught:
        check_version(path, runtime, "sdtrt build X", compatible)
    assert caught.value.slug == "plan-version"
    assert ".".join(map(str, plan)) in caught.value.received
    assert runtime in caught.value.received
    assert "sdtrt build X --force" in caught.value.hint


@pytest.mark.parametrize(
    ("changes", "accepted"),
    [
        ({}, True),
        ({"gpu": "NVIDIA H100 80GB HBM3"}, False),
        ({"gpu": "NVIDIA H100 80GB HBM3", "hardware_compatibility": "same_compute_capability"}, True),
        ({"gpu": "NVIDIA L4", "sm": "8.9"}, False),
        ({"gpu": "NVIDIA L4", "sm": "8.9", "hardware_compatibility": "same_compute_capability"}, False),
        ({"gpu": "NVIDIA L4", "sm": "8.9", "hardware_compatibility": "ampere_plus"}, True),
    ],
)
def test_gpus(changes, accepted):
    if accepted:
        check_gpu(record(**changes), H100, "sdtrt build X")
        return
    with pytest.raises(EngineError) as caught:
        check_gpu(record(**changes), H100, "sdtrt build X")
    assert caught.value.slug == "plan-gpu"
    assert H100.name in caught.value.received
    assert changes["gpu"] in caught.value.expected
