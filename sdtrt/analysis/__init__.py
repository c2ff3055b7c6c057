"""Analysis of built engines: files in; tables, findings, a comparison, graphs and one HTML page out.

`load` reads a bundle, plan.json files or what trtexec writes, and makes an `Analysis`; every renderer takes that.
Reads files only and imports neither torch nor a vendor library, so that a bundle can be examined on any machine.
"""

from sdtrt.analysis.comparison.compare import Comparison, compare
from sdtrt.analysis.comparison.gate import Check, gate
from sdtrt.analysis.comparison.html import render_comparison
from sdtrt.analysis.comparison.text import comparison_to_json, comparison_to_markdown
from sdtrt.analysis.device_peaks import DevicePeaks
from sdtrt.analysis.frame import COLUMNS, to_frame
from sdtrt.analysis.load import load, load_plans
from sdtrt.analysis.repeated_runs import merge_runs
from sdtrt.analysis.report.html import render
from sdtrt.analysis.report.text import to_csv, to_json, to_markdown
from sdtrt.analysis.report.xlsx import to_xlsx
from sdtrt.analysis.session import Analysis
from sdtrt.analysis.summary import Summary, summarize

__all__ = [
    "COLUMNS",
    "Analysis",
    "Check",
    "Comparison",
    "DevicePeaks",
    "Summary",
    "compare",
    "comparison_to_json",
    "comparison_to_markdown",
    "gate",
    "load",
    "load_plans",
    "merge_runs",
    "render",
    "render_comparison",
    "summarize",
    "to_csv",
    "to_frame",
    "to_json",
    "to_markdown",
    "to_xlsx",
]
