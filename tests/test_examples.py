"""The notebook in examples/ runs as it is, and what is stored in it is what it says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from trt_dump import write

EXAMPLES = Path(__file__).parents[1] / "examples"
NOTEBOOK = EXAMPLES / "engine_explorer.ipynb"


@pytest.fixture(scope="module")
def cells() -> list[dict]:
    return json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]


@pytest.fixture(scope="module")
def outputs(cells) -> list[dict]:
    return [output for cell in cells if cell["cell_type"] == "code" for output in cell["outputs"]]


def source(cells, kind):
    return "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == kind)


def test_the_notebook_is_stored_as_it_ran_from_top_to_bottom(cells):
    counts = [cell["execution_count"] for cell in cells if cell["cell_type"] == "code"]
    assert counts == list(range(1, len(counts) + 1))


def test_it_is_small_enough_for_a_web_page_and_holds_no_error(outputs):
    assert NOTEBOOK.stat().st_size < 3_000_000
    assert not [output for output in outputs if output["output_type"] == "error" or output.get("name") == "stderr"]


def test_its_charts_are_pictures_that_a_web_page_shows(outputs):
    kinds = [kind for output in outputs for kind in output.get("data", {})]
    assert kinds.count("image/png") >= 15
    assert set(kinds) <= {"image/png", "text/html", "text/plain"}


def test_it_names_no_folder_of_the_machine_that_ran_it(outputs):
    texts = [str(output.get("text")) + str(output.get("data", {}).get("text/plain")) for output in outputs]
    assert not [text for text in texts if str(EXAMPLES.parent) in text or "/tmp/" in text]  # noqa: S108


def test_the_walk_through_of_the_article_is_complete(cells):
    names = (
        "EnginePlan plan.name plan.summary() plan.df clean_for_display display_df set_wide_display group_count "
        "plotly_bar2 nlargest(3 plotly_hist weights_size total_io_size_bytes group_sum_attr plotly_pie2 "
        "precision_colormap layer_colormap layer_type_formatter precision_formatter to_dot render_dot "
        "get_layers_by_type attr.arithmetic_intensity attr.compute_efficiency attr.memory_efficiency"
    )
    text = source(cells, "code") + source(cells, "markdown")
    assert [name for name in names.split() if name not in text] == []


def test_the_files_of_the_engine_are_those_that_the_readme_says_how_to_write(tmp_path):
    write(tmp_path)
    stored = EXAMPLES / "data"
    assert sorted(p.name for p in stored.iterdir()) == sorted(p.name for p in tmp_path.iterdir())
    for path in tmp_path.glob("*.json"):
        assert json.loads((stored / path.name).read_text()) == json.loads(path.read_text())
    assert "synthetic" in (EXAMPLES / "README.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_notebook_runs_over_a_bundle_and_over_the_files(bundles, monkeypatch):
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    monkeypatch.setenv("SDTRT_BUNDLE", str(bundles("sd1", "onnxruntime").path))
    monkeypatch.setenv("PLOTLY_RENDERER", "json")
    stored = [cell.outputs for cell in notebook.cells if cell.cell_type == "code"]
    nbclient.NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(EXAMPLES)}}).execute()
    ran = [cell.outputs for cell in notebook.cells if cell.cell_type == "code"]
    # As many charts, tables and texts below each cell; the figures of a machine differ.
    assert [len(cell) for cell in ran] == [len(cell) for cell in stored]
    assert not [output for cell in ran for output in cell if output.get("name") == "stderr"]
