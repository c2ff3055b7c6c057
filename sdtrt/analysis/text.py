"""Reports as text: JSON for programs, Markdown for pull requests, CSV for spreadsheets."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Sequence
from dataclasses import asdict

import numpy as np
import pandas as pd

from sdtrt.analysis.frame import to_frame
from sdtrt.analysis.summary import number, summarize
from sdtrt.plan import Plan

TOP = 20
TOP_COLUMNS = ("component", "name", "kind", "module", "time_ms", "pct_time", "tflops_per_s", "gb_per_s")


def to_json(plans: Sequence[Plan]) -> str:
    """The summaries and the layer table; what is not known is null."""
    layers = to_frame(plans).astype(object).replace({np.nan: None}).to_dict("records")
    data = {"components": [asdict(summarize(plan)) for plan in plans], "layers": layers}
    return json.dumps(data, indent=1, allow_nan=False) + "\n"


def to_csv(plans: Sequence[Plan]) -> str:
    """The layer table; what is not known is an empty field, and node names are joined with ";"."""
    frame = to_frame(plans)
    return frame.assign(nodes=frame["nodes"].map(";".join)).to_csv(index=False, lineterminator="\n")


def to_markdown(plans: Sequence[Plan]) -> str:
    """The summary, time by kind, and the layers that take the most time."""
    timed = to_frame(plans).dropna(subset=["time_ms"])
    facts = [summarize(plan).facts() for plan in plans]
    kinds = timed.groupby(["component", "kind"])[["time_ms", "pct_time"]].sum()
    sections = (
        "# Engine report",
        _table(pd.DataFrame(facts, index=[plan.component for plan in plans]).T.reset_index(names="")),
        "## Time by kind",
        _table(kinds.sort_values(["component", "time_ms"], ascending=[True, False]).reset_index()),
        f"## Slowest {TOP} layers",
        _table(timed.nlargest(TOP, "time_ms")[list(TOP_COLUMNS)]),
    )
    return "\n\n".join(sections) + "\n"


def _table(frame: pd.DataFrame) -> str:
    rows = [[_cell(value) for value in row] for row in (list(frame.columns), *frame.values.tolist())]
    rows.insert(1, ["---"] * len(frame.columns))
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _cell(value: object) -> str:
    text = number(value) if isinstance(value, float) else html.escape(str(value), quote=False)
    return re.sub(r"([|\\`*_\[\]])", r"\\\1", " ".join(text.split()))
