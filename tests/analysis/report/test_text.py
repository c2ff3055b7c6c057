"""JSON, CSV, Markdown and Excel: compared with golden files, which SDTRT_UPDATE_GOLD=1 rewrites, and hard to abuse."""

from __future__ import annotations

import csv
import io
import json
import os
import re
from dataclasses import replace
from pathlib import Path

import pytest

from sdtrt.analysis import COLUMNS, Analysis, DevicePeaks, to_csv, to_json, to_markdown, to_xlsx
from sdtrt.analysis.findings import Finding

GOLD = Path(__file__).parent / "gold"
FORMULAS = ["=HYPERLINK(1)", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1"]


@pytest.fixture
def known(plans, manifest, image_run, hostile) -> Analysis:
    """An analysis of which everything is known; its finding is set, so that the rules may change without this file."""
    peaks = DevicePeaks(device="NVIDIA H200", source="test", gb_per_s=4000, vector_tflops=60, launch_us=2)
    analysis = Analysis(tuple(plans), manifest, image_run, peaks)
    found = Finding("a_rule", "high", f"Slow {hostile}", "It is slow.", "unet", (hostile,), 1.5, 30.0, "Make it fast.")
    analysis.__dict__["findings"] = (found, replace(found, severity="low", cost_ms=None, cost_per_image_ms=None))
    return analysis


def renamed(unet, name) -> Analysis:
    """An analysis in which every text of a layer is `name`."""
    part = unet.layers[0].model_copy(
        update={"name": name, "op": name, "kernel": name, "module": name, "precision": name, "nodes": (name,)}
    )
    return Analysis((unet.model_copy(update={"component": name, "layers": (part,), "notes": (name,)}),))


@pytest.mark.parametrize(("name", "write"), [("report.md", to_markdown), ("report.json", to_json)])
def test_equals_the_golden_file(name, write, known):
    text, gold = write(known), GOLD / name
    if os.environ.get("SDTRT_UPDATE_GOLD") == "1":
        gold.write_text(text, encoding="utf-8")
    assert text == gold.read_text(encoding="utf-8"), "if the change is meant: SDTRT_UPDATE_GOLD=1 pytest tests/analysis"


def test_json_writes_what_is_not_known_as_null(analysis):
    data = json.loads(to_json(analysis))
    assert data["layers"][-1]["time_ms"] is None
    assert data["layers"][-1]["module"] is None
    assert data["components"][0]["wall_ms"] is None
    assert (data["image"], data["peaks"]) == (None, None)


def test_json_has_what_the_page_shows(known, unet):
    data = json.loads(to_json(known))
    assert data["format"] == 2
    assert list(data["layers"][0]) == list(COLUMNS)
    assert data["layers"][-4]["nodes"] == ["a", "b"]
    assert data["bundle"]["parity"] == {"unet": {"max_abs_error": 0.00125}}
    assert data["components"][1]["unattributed_ms"] == 0.125
    assert data["components"][1]["metadata"] == unet.metadata
    assert {row["stage"] for row in data["budget"]["rows"]} >= {"unet", "text_encoder"}
    assert data["findings"][0]["cost_per_image_ms"] == 30
    assert data["peaks"]["gb_per_s"] == 4000


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_json_has_no_number_that_json_does_not_know(unet, bad):
    part = unet.layers[0].model_copy(update={"times_ms": (bad,)})
    text = to_json(Analysis((unet.model_copy(update={"layers": (part,), "wall_times_ms": (bad,)}),)))
    assert not re.search(r"\b(NaN|Infinity)\b", text)
    assert json.loads(text)["layers"][0]["time_ms"] is None


def test_csv_can_be_read_back(analysis):
    rows = list(csv.DictReader(io.StringIO(to_csv(analysis))))
    assert list(rows[0]) == list(COLUMNS)
    assert len(rows) == sum(len(plan.layers) for plan in analysis.plans)
    assert rows[-1]["time_ms"] == ""
    assert rows[-4]["nodes"] == "a;b"


@pytest.mark.parametrize("name", FORMULAS)
def test_csv_holds_no_formula(unet, name):
    (row,) = csv.DictReader(io.StringIO(to_csv(renamed(unet, name)), newline=""))
    for column in ("component", "name", "op", "kernel", "module", "precision", "nodes"):
        assert row[column] == f"'{name}".replace("\r", "\n")
    assert row["time_ms"] == "2.0", "numbers stay numbers"


def test_markdown_cells_cannot_break_out(known):
    text = to_markdown(known)
    assert "<" not in text
    assert "norm\\|1" in text


@pytest.mark.parametrize(
    "name", ["a|b\n| c", "[x](javascript:1)", "@someone", "#1", "`x`", "\x1b[31m", "~~x~~", "![a](b)"]
)
def test_markdown_shows_names_literally(unet, name):
    text = to_markdown(renamed(unet, name))
    table = text.partition("layers\n\n")[2].split("\n\n")[0].splitlines()
    assert len(table) == 3
    assert len({len(re.findall(r"(?<!\\)\|", row)) for row in table}) == 1
    assert not re.search(r"(?<!\\)[\[`@~#]", table[-1])
    assert "\x1b" not in text


def test_markdown_says_what_was_left_out_and_when_nothing_was_found(unet):
    text = to_markdown(Analysis((unet.model_copy(update={"layers": (), "notes": ("2 records were cut off",)}),)))
    assert "2 records were cut off" in text
    assert "No rule found anything." in text


def test_the_workbook_has_all_tables(known, tmp_path):
    openpyxl = pytest.importorskip("openpyxl")
    to_xlsx(known, tmp_path / "report.xlsx")
    assert [p.name for p in tmp_path.iterdir()] == ["report.xlsx"]
    book = openpyxl.load_workbook(tmp_path / "report.xlsx")
    assert book.sheetnames == ["Summary", "Layers", "By kind", "By module", "Findings", "Budget", "Memory"]
    sheet = book["Layers"]
    assert [cell.value for cell in sheet[1]] == list(COLUMNS)
    assert sheet.max_row == 1 + sum(len(plan.layers) for plan in known.plans)
    assert sheet.freeze_panes == "A2"
    column = list(COLUMNS).index("time_ms") + 1
    assert sheet.cell(9, column).value == 2
    assert sheet.cell(sheet.max_row, column).value is None, "unknown is an empty cell"
    kinds = {(row[0], row[1]): row[2] for row in book["By kind"].iter_rows(min_row=2, values_only=True)}
    assert kinds["unet", "conv"] == 2
    assert kinds["unet", "reformat"] is None, "the sum of unknown times is unknown"
    assert book["Findings"].cell(2, 2).value == 30


@pytest.mark.parametrize("name", [*FORMULAS, "a\x00\x1bb", "x" * 40_000])
def test_the_workbook_holds_no_formula_and_no_broken_cell(unet, tmp_path, name):
    openpyxl = pytest.importorskip("openpyxl")
    to_xlsx(renamed(unet, name), tmp_path / "report.xlsx")
    book = openpyxl.load_workbook(tmp_path / "report.xlsx")
    cells = [cell for sheet in book for row in sheet.iter_rows() for cell in row]
    assert "f" not in {cell.data_type for cell in cells}
    named = book["Layers"].cell(2, list(COLUMNS).index("name") + 1)
    assert named.data_type == "s"
    assert named.quotePrefix
    assert len(named.value) <= 32_767


@pytest.mark.parametrize("write", [to_csv, to_json, to_markdown])
def test_no_plans_is_a_report_too(write):
    assert write(Analysis(())).endswith("\n")


def test_no_plans_is_a_workbook_too(tmp_path):
    openpyxl = pytest.importorskip("openpyxl")
    to_xlsx(Analysis(()), tmp_path / "empty.xlsx")
    assert len(openpyxl.load_workbook(tmp_path / "empty.xlsx").sheetnames) == 7
