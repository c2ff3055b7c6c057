"""The report as an Excel workbook: one sheet per table, with filters and a fixed first row.

A text stays a text, even one that starts as a formula: a layer called "=HYPERLINK(...)" is not run.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from sdtrt.analysis.escape import legal
from sdtrt.analysis.frame import COLUMNS
from sdtrt.analysis.memory import MemoryRow
from sdtrt.analysis.session import Analysis

if TYPE_CHECKING:
    from openpyxl.worksheet._write_only import WriteOnlyWorksheet

# Excel's limit for a cell.
MAX_TEXT = 32_767
MAX_WIDTH = 60
Table = tuple[Sequence[str], Iterable[Sequence[object]]]


def to_xlsx(analysis: Analysis, path: Path) -> None:
    """Write the workbook: Summary, Layers, By kind, By module, Findings, Budget, Memory."""
    from openpyxl import Workbook

    book = Workbook(write_only=True)
    for title, (columns, rows) in tables(analysis).items():
        _fill(book.create_sheet(title), columns, [list(row) for row in rows])
    temporary = path.with_name(f".{path.name}.tmp")
    book.save(temporary)
    temporary.replace(path)


def tables(analysis: Analysis) -> dict[str, Table]:
    """Columns and rows of every sheet."""
    frame = analysis.frame
    facts = [summary.facts() for summary in analysis.summaries]
    summary = [[label, *(f[label] for f in facts)] for label in (facts[0] if facts else ())]
    summary += [["Left out", *("\n".join(plan.notes) for plan in analysis.plans)]] if facts else []
    findings = ("severity", "cost_per_image_ms", "cost_ms", "component", "rule", "title", "message", "advice", "layers")
    budget = ("stage", "calls", "per_call_ms", "total_ms", "share_pct", "note")
    memory = [field.name for field in fields(MemoryRow)]
    return {
        "Summary": (["", *(s.component for s in analysis.summaries)], summary),
        "Layers": (list(COLUMNS), frame.itertuples(index=False, name=None)),
        "By kind": _sums(frame, "kind"),
        "By module": _sums(frame, "module"),
        "Findings": (findings, [[getattr(f, name) for name in findings] for f in analysis.findings]),
        "Budget": (budget, [[getattr(row, name) for name in budget] for row in analysis.budget.rows]),
        "Memory": (memory, [[getattr(row, name) for name in memory] for row in analysis.memory]),
    }


def _sums(frame: pd.DataFrame, by: str) -> Table:
    summed = ["time_ms", "pct_time", "flops", "bytes_moved", "weight_bytes", "headroom_ms"]
    groups = frame.groupby(["component", by], sort=False, dropna=False)
    sums = groups[summed].sum(min_count=1).join(groups.size().rename("layers")).reset_index()
    sums = sums.sort_values(["component", "time_ms"], ascending=[True, False], kind="stable")
    return list(sums.columns), sums.itertuples(index=False, name=None)


def _fill(sheet: WriteOnlyWorksheet, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    from openpyxl.cell import WriteOnlyCell
    from openpyxl.styles import Font
    from openpyxl.utils import get_column_letter

    for index, column in enumerate(columns):
        longest = max((len(str(row[index])) for row in rows), default=0)
        sheet.column_dimensions[get_column_letter(index + 1)].width = min(max(longest, len(column)) + 3, MAX_WIDTH)
    sheet.freeze_panes = "A2"
    sheet.auto_filter.ref = f"A1:{get_column_letter(len(columns))}{len(rows) + 1}"

    def cell(value: object, bold: bool = False) -> Any:
        value = _plain(value)
        made = WriteOnlyCell(sheet, value)
        if isinstance(value, str):
            # Else a leading "=" makes it a formula; the quote prefix keeps it a text after an edit.
            made.data_type = "s"
            made.quotePrefix = True
        if bold:
            made.font = Font(bold=True)
        return made

    sheet.append([cell(column, bold=True) for column in columns])
    for row in rows:
        sheet.append([cell(value) for value in row])


def _plain(value: object) -> str | int | float | None:
    """What a cell can hold; what is not known is an empty cell."""
    if isinstance(value, tuple):
        value = "\n".join(map(str, value))
    if value is None or (isinstance(value, float) and pd.isna(value)):
        return None
    return value if isinstance(value, int | float) else legal(str(value))[:MAX_TEXT]
