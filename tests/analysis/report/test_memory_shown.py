"""What engines take, in every report: known figures with their unit, unknown ones as such, and nothing without any."""

from __future__ import annotations

import json

import pytest

from sdtrt.analysis import Analysis, to_json, to_markdown, to_xlsx
from sdtrt.analysis.report.html import render
from sdtrt.bundle.manifest import FileRecord, Memory, ProfileMemory
from sdtrt.cli.tables import show_analysis

SMALL, LARGE = "B=1,H=512,W=512", "B=1:1:4,H=1024,W=1024"


@pytest.fixture
def sized(plans, manifest) -> Analysis:
    """The U-Net with two profiles, of the larger of which less is known; of the text encoder nothing is recorded."""
    profiles = (
        ProfileMemory(
            profile=SMALL, activation_opt_bytes=5_000_000, activation_max_bytes=5_000_000, context_bytes=829_000
        ),
        ProfileMemory(profile=LARGE, activation_opt_bytes=80_000_000),
    )
    facts = {
        "files": {"engine.plan": FileRecord(bytes=1_730_000_000, sha256="0")},
        "memory": Memory(profiles=profiles, build_peak_bytes=None),
    }
    unet = manifest.components["unet"].model_copy(update=facts)
    return Analysis(tuple(plans), manifest.model_copy(update={"components": {"unet": unet}}))


def show(analysis, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    show_analysis(analysis)
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 80
    return text


def test_the_terminal_has_a_row_for_every_profile_and_names_them(sized, monkeypatch, capsys):
    lines = [" ".join(line.split()) for line in show(sized, monkeypatch, capsys).splitlines()]
    assert "memory of files weights activations at most context" in lines
    assert "unet, profile 1 1.73 GB 1.72 GB 5 MB 5 MB 829 kB" in lines
    assert "unet, profile 2 1.73 GB 1.72 GB 80 MB unknown unknown" in lines
    assert f"profile 2: {LARGE}" in lines


def test_the_terminal_leaves_out_what_is_known_of_no_engine(sized, monkeypatch, capsys):
    bare = sized.manifest.components["unet"]
    alone = bare.memory.profiles[0].model_copy(update={"context_bytes": None})
    bare = bare.model_copy(update={"memory": Memory(profiles=(alone,))})
    manifest = sized.manifest.model_copy(update={"components": {"unet": bare}})
    text = show(Analysis(sized.plans, manifest), monkeypatch, capsys)
    assert ["memory", "of", "files", "weights", "activations", "at", "most"] in [
        line.split() for line in text.splitlines()
    ]
    assert "profile 1" not in text


@pytest.mark.parametrize("told", ["no manifest", "no record"])
def test_without_any_figure_there_is_no_table(plans, manifest, monkeypatch, capsys, told):
    bare = {"unet": manifest.components["unet"].model_copy(update={"memory": None})}
    plans = [plan.model_copy(update={"total_weight_bytes": None}) for plan in plans]
    analysis = Analysis(tuple(plans), manifest.model_copy(update={"components": bare}) if told == "no record" else None)
    assert analysis.memory == ()
    assert "memory of" not in show(analysis, monkeypatch, capsys)
    assert "Memory of the engines" not in render(analysis)
    assert "## Memory" not in to_markdown(analysis)
    assert json.loads(to_json(analysis))["memory"] == []


def test_the_page_has_the_figures_in_its_memory_section(sized):
    section = render(sized).partition('<section id="memory"')[2].partition("</section>")[0]
    table = section.partition("Memory of the engines")[2].partition("</table>")[0]
    assert [table.count(text) for text in ("<tr>", "1,730 MB", "0.829 MB", LARGE)] == [3, 2, 1, 1]
    assert table.count('<td class="number soft">unknown</td>') == 4
    assert ">0 MB" not in table


def test_markdown_json_and_the_workbook_have_them(sized, tmp_path):
    assert "| unet | B=1,H=512,W=512 | 1,730 MB | 1,720 MB | 5 MB | 5 MB | 0.829 MB | unknown |" in to_markdown(sized)
    first, second = json.loads(to_json(sized))["memory"]
    assert (first["profile"], first["context_bytes"], first["build_peak_bytes"]) == (SMALL, 829_000, None)
    assert (second["activation_opt_bytes"], second["activation_max_bytes"]) == (80_000_000, None)
    openpyxl = pytest.importorskip("openpyxl")
    to_xlsx(sized, tmp_path / "r.xlsx")
    rows = list(openpyxl.load_workbook(tmp_path / "r.xlsx")["Memory"].iter_rows(values_only=True))
    assert rows[2][:5] == ("unet", LARGE, 1_730_000_000, 1_720_000_000, 80_000_000)


def test_only_the_engines_that_are_shown_have_rows(sized):
    assert {row.component for row in sized.memory} == {"unet"}
    assert Analysis(sized.plans[:1], sized.manifest).memory == ()
