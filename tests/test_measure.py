"""Ceilings are measured in the units they are named in, and a report can use them."""

from __future__ import annotations

import pytest

from sdtrt import cli, measure
from sdtrt.analysis.ceilings import Ceilings


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(measure, "CPU_SIDE", 64)
    monkeypatch.setattr(measure, "CPU_BYTES", 1 << 20)


def test_rates_follow_from_the_seconds(small, monkeypatch):
    monkeypatch.setattr(measure, "_seconds", lambda call, device: 1e-3)
    found = measure.measure_ceilings("cpu")
    assert found.matrix_tflops == {"float32": pytest.approx(2 * 64**3 / 1e-3 / 1e12)}
    assert found.gb_per_s == pytest.approx(2 * (1 << 20) / 1e-3 / 1e9)
    assert found.tflops("norm", "float32") == found.tflops("conv", "float32")
    assert found.launch_us is None


def test_doctor_writes_what_analyze_reads(small, tmp_path, capsys):
    path = tmp_path / "new" / "ceilings.json"
    with pytest.raises(SystemExit) as caught:
        cli.main(["doctor", "--ceilings", str(path)])
    assert caught.value.code == 0
    assert Ceilings.load(path).gb_per_s > 0
    assert "TFLOP/s" in capsys.readouterr().out
