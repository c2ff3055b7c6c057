"""Reports as text: JSON for programs, Markdown for pull requests, CSV for spreadsheets."""

import json
from dataclasses import asdict
from typing import Any

import pandas as pd
from pydantic_core import to_jsonable_python

from sdtrt.analysis.escape import markdown, markdown_table, spreadsheet
from sdtrt.analysis.frame import COLUMNS, TEXT
from sdtrt.analysis.session import Analysis
from sdtrt.analysis.summary import megabytes

# 1: plans only. 2: device, image, budget, findings and notes.
JSON_VERSION = 2
TOP = 20
TOP_FINDINGS = 10
TOP_COLUMNS = ("component", "name", "kind", "module", "time_ms", "pct_time", "tflops_per_s", "gb_per_s", "bound")
MEMORY = ("files", "weights", "activations", "at most", "context", "build's peak")
TIMES = ("time_ms", "pct_time", "tflops_per_s", "gb_per_s")


def to_json(analysis: Analysis) -> str:
    """Everything that the page shows, and all layers; what is not known is null."""
    frame = analysis.frame
    # Column by column: thousands of rows are written in a fraction of a second.
    columns = [frame[name].astype(object).where(frame[name].notna(), None) for name in COLUMNS]
    manifest, run, peaks = analysis.manifest, analysis.run, analysis.peaks
    data = {
        "format": JSON_VERSION,
        "bundle": None if manifest is None else _bundle(manifest.model_dump(mode="json")),
        "image": None if run is None else run.model_dump(mode="json", exclude={"format"}),
        "peaks": None if peaks is None else peaks.model_dump(mode="json", exclude={"format"}),
        "components": [
            {**asdict(summary), "metadata": plan.metadata, "notes": plan.notes}
            for summary, plan in zip(analysis.summaries, analysis.plans, strict=True)
        ],
        "memory": analysis.memory,
        "budget": analysis.budget,
        "findings": analysis.findings,
        "layers": [dict(zip(COLUMNS, row, strict=True)) for row in zip(*columns, strict=True)],
    }
    # JSON has no NaN and no infinity: such a figure is not known.
    return json.dumps(to_jsonable_python(data, inf_nan_mode="null"), indent=1, allow_nan=False) + "\n"


def to_csv(analysis: Analysis) -> str:
    """The layer table; what is not known is an empty field, and node names are joined with ";".

    A text that a spreadsheet would run as a formula has an apostrophe before it.
    """
    frame = analysis.frame
    texts = {name: frame[name].map(lambda v: spreadsheet(v) if isinstance(v, str) else v) for name in TEXT}
    nodes = frame["nodes"].map(lambda names: spreadsheet(";".join(names)))
    return frame.assign(**texts, nodes=nodes).to_csv(index=False, lineterminator="\n")


def to_markdown(analysis: Analysis) -> str:
    """Totals, memory, the budget of an image, findings, time by kind, the slowest layers, and what is not known."""
    timed = analysis.frame.dropna(subset=["time_ms"])
    facts = [summary.facts() for summary in analysis.summaries]
    labels = list(facts[0]) if facts else []
    kinds = timed.groupby(["component", "kind"], as_index=False)[["time_ms", "pct_time"]].sum()
    kinds = kinds.sort_values(["component", "time_ms"], ascending=[True, False], kind="stable")
    components = [summary.component for summary in analysis.summaries]
    sections = (
        "# Engine report",
        markdown_table(["", *components], [[label, *(f[label] for f in facts)] for label in labels]),
        *_memory(analysis),
        *_budget(analysis),
        *_findings(analysis),
        "## Time by kind",
        _table(kinds),
        f"## Slowest {TOP} layers",
        _table(timed.nlargest(TOP, "time_ms")[list(TOP_COLUMNS)]),
        *_notes(analysis),
    )
    return "\n\n".join(sections) + "\n"


def _bundle(manifest: dict[str, Any]) -> dict[str, Any]:
    kept = ("family", "model", "backend", "precision", "profiles", "environment", "created", "image")
    parity = {name: component["parity"] for name, component in manifest["components"].items()}
    return {**{key: manifest[key] for key in kept}, "parity": parity}


def _budget(analysis: Analysis) -> tuple[str, ...]:
    budget = analysis.budget
    if not budget.rows:
        return ()
    columns = ("stage", "calls", "per_call_ms", "total_ms", "share_pct", "note")
    rows = [[getattr(row, column) for column in columns] for row in budget.rows]
    said = "" if budget.whole == "run" else ", not timed: calls are assumed" if budget.assumed else ", as recorded"
    return (f"## One {budget.total_of}{said}", markdown_table(columns, rows, columns[1:5]))


def _memory(analysis: Analysis) -> tuple[str, ...]:
    if not analysis.memory:
        return ()
    rows = [(row.component, row.profile, *map(megabytes, row.figures())) for row in analysis.memory]
    return "## Memory", markdown_table(("engine", "profile", *MEMORY), rows, MEMORY)


def _findings(analysis: Analysis) -> tuple[str, ...]:
    found = analysis.findings
    if not found:
        return "## Findings", "No rule found anything."
    unit = f"ms per {analysis.budget.whole}"
    columns = ("severity", unit, "engine", "finding", "layers")
    rows = [
        (f.severity, f.cost_per_image_ms, f.component, f"{f.title}: {f.message}", len(f.layers))
        for f in found[:TOP_FINDINGS]
    ]
    more = len(found) - TOP_FINDINGS
    note = (f"{more} more, and what to do, are in the JSON.",) if more > 0 else ()
    return "## Findings", markdown_table(columns, rows, (unit, "layers")), *note


def _notes(analysis: Analysis) -> tuple[str, ...]:
    lines = [f"- {markdown(p.component)}: {markdown(note)}" for p in analysis.plans for note in p.notes]
    return ("## Left out", "\n".join(lines)) if lines else ()


def _table(frame: pd.DataFrame) -> str:
    return markdown_table(list(frame.columns), frame.to_numpy(dtype=object).tolist(), TIMES)
