"""Peaks are measured in the units they are named in, and a report can use them."""

from __future__ import annotations

import pytest
import torch

from sdtrt import cli
from sdtrt.analysis.device_peaks import DevicePeaks
from sdtrt.bench import measure_peaks


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(measure_peaks, "CPU_SIDE", 64)
    monkeypatch.setattr(measure_peaks, "CPU_BYTES", 1 << 20)


def test_rates_follow_from_the_seconds(small, monkeypatch):
    monkeypatch.setattr(measure_peaks, "_median_s", lambda call, device: 1e-3)
    found = measure_peaks.measure_peaks("cpu")
    assert found.matrix_tflops == {"float32": pytest.approx(2 * 64**3 / 1e-3 / 1e12)}
    assert found.gb_per_s == pytest.approx(2 * (1 << 20) / 1e-3 / 1e9)
    assert found.tflops("norm", "float32") == found.tflops("conv", "float32")
    assert found.launch_us is None


@pytest.mark.parametrize(("capability", "rates"), [((8, 0), 3), ((8, 9), 4), ((9, 0), 4)])
def test_gpus_that_multiply_float8_are_measured_in_it(capability, rates, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "GPU")
    monkeypatch.setattr(measure_peaks, "_matmul_tflops", lambda dtype, side, device: float(len(dtype)))
    monkeypatch.setattr(measure_peaks, "_elementwise_tflops", lambda device: None)
    monkeypatch.setattr(measure_peaks, "_copy_gb_per_s", lambda nbytes, device: 1.0)
    found = measure_peaks.measure_peaks("cuda")
    assert list(found.matrix_tflops) == ["float32", "float16", "bfloat16", "float8"][:rates]
    assert (found.tflops("gemm", "float8_e4m3fn") is not None) == (rates == 4)


@pytest.mark.parametrize("dtype", ["float32", "float16", "float8"])
def test_a_product_of_each_type_runs(dtype):
    assert measure_peaks._matmul_tflops(dtype, 64, "cpu") > 0


def test_doctor_writes_what_analyze_reads(small, tmp_path, capsys):
    path = tmp_path / "new" / "peaks.json"
    with pytest.raises(SystemExit) as caught:
        cli.main(["doctor", "--peaks", str(path)])
    assert caught.value.code == 0
    assert DevicePeaks.load(path).gb_per_s > 0
    assert "TFLOP/s" in capsys.readouterr().out
