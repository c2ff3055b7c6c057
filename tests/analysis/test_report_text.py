"""JSON, CSV and Markdown: compared with golden files, which SDTRT_UPDATE_GOLD=1 rewrites."""

from __future__ import annotations

import csv
import io
import json
import os
from pathlib import Path

import pytest

from sdtrt.analysis import COLUMNS, to_csv, to_json, to_markdown

GOLD = Path(__file__).parent / "gold"


@pytest.mark.parametrize(("name", "write"), [("report.md", to_markdown), ("report.json", to_json)])
def test_equals_the_golden_file(name, write, plans):
    text, gold = write(plans), GOLD / name
    if os.environ.get("SDTRT_UPDATE_GOLD") == "1":
        gold.write_text(text, encoding="utf-8")
    assert text == gold.read_text(encoding="utf-8"), "if the change is meant: SDTRT_UPDATE_GOLD=1 pytest tests/analysis"


def test_json_writes_what_is_not_known_as_null(plans):
    data = json.loads(to_json(plans))
    assert data["layers"][-1]["time_ms"] is None
    assert data["layers"][-1]["module"] is None
    assert data["components"][0]["wall_ms"] is None


def test_csv_can_be_read_back(plans):
    rows = list(csv.DictReader(io.StringIO(to_csv(plans))))
    assert list(rows[0]) == list(COLUMNS)
    assert len(rows) == sum(len(plan.layers) for plan in plans)
    assert rows[-1]["time_ms"] == ""
    assert rows[-4]["nodes"] == "a;b"


def test_markdown_cells_cannot_break_out(plans):
    text = to_markdown(plans)
    assert "<" not in text
    assert "norm\\|1" in text


@pytest.mark.parametrize("write", [to_csv, to_json, to_markdown])
def test_no_plans_is_a_report_too(write):
    assert write([]).endswith("\n")
