"""Analysis of built engines: plans in; a table, JSON, Markdown, CSV and one HTML page out.

Reads files only and imports neither torch nor a vendor library, so that a bundle can be examined on any machine.
"""

from sdtrt.analysis.frame import COLUMNS, to_frame
from sdtrt.analysis.load import load_plans
from sdtrt.analysis.report import render
from sdtrt.analysis.summary import Summary, summarize
from sdtrt.analysis.text import to_csv, to_json, to_markdown

__all__ = ["COLUMNS", "Summary", "load_plans", "render", "summarize", "to_csv", "to_frame", "to_json", "to_markdown"]
