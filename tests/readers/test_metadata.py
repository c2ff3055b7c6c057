"""What is known of device, build and run comes from trtexec's log, in newer and older files."""

from __future__ import annotations

import pytest

from sdtrt.analysis.device_peaks import peaks_of
from sdtrt.readers.documents import Omissions
from sdtrt.readers.formats.tensorrt.metadata import device_name, gpu_ms, precision, run_shapes, sections


@pytest.mark.parametrize(
    "options",
    [
        {"Input inference shape": "sample=2x4x64x64,timestep=1"},
        {"Input inference shapes": ["sample=2x4x64x64", "timestep=1"]},
        {"Input inference shape : sample": "", "Input inference shapes": {"sample": "2x4x64x64", "timestep": "1"}},
        {"Input inference shapes": "sample = 2x4x64x64; timestep:1"},
    ],
)
def test_the_shapes_of_the_run_are_found(options):
    assert run_shapes({"inference": options}) == {"sample": (2, 4, 64, 64), "timestep": (1,)}


@pytest.mark.parametrize("text", ["", "x=", "x=axb", "=2x3", 5, None, "x=99999999999x1", "x" * 100_000])
def test_what_is_no_shape_is_none(text):
    assert run_shapes({"inference": {"Input inference shape": text}}) == {}


def test_the_median_of_the_summary_is_the_wall_time_where_runs_were_not_exported():
    known = {"performance": {"GPU Compute Time": [0.85, 0.87, 0.863, 0.862, 0.871]}}
    assert gpu_ms(known) == (0.862,)


@pytest.mark.parametrize("figures", [None, "1", [], [1, 2, 3], [1, 2, 3, None], [1, 2, 3, -1], [1, 2, 3, True], {}])
def test_a_summary_without_a_median_has_no_wall_time(figures):
    assert gpu_ms({"performance": {"GPU Compute Time": figures}}) is None
    assert gpu_ms({}) is None


def test_sections_have_short_names_and_unknown_ones_are_noted():
    left = Omissions()
    data = {"build_options": {"Precision": "FP32+FP16"}, "device_information": {"Selected Device": "X"}, "more": 1}
    found = sections(data, left)
    assert (device_name(found), precision(found)) == ("X", "fp32+fp16")
    assert left.notes() == ("left out: a section of the metadata that is not known (1 times, first in more)",)


def test_a_missing_section_is_not_known():
    assert (device_name({}), precision({}), run_shapes({})) == (None, None, {})


def test_the_older_list_of_pycuda_gives_a_bandwidth():
    old = [{"Name": "Some GPU", "GLOBAL_MEMORY_BUS_WIDTH": 384, "MEMORY_CLOCK_RATE": 9_751_000, "WARP_SIZE": 32}]
    found = sections(old, Omissions())
    assert device_name(found) == "Some GPU"
    assert peaks_of("Some GPU", found).gb_per_s == pytest.approx(384 / 8 * 9.751 * 2)
