"""Bars per module: the time of perfect kernels, and what the measured ones take on top."""

import plotly.graph_objects as go

from sdtrt.analysis.colors import LINE, LOST, WEIGHTS
from sdtrt.analysis.plot_support.layout import stack_bars
from sdtrt.analysis.plot_support.modules import blocks_of
from sdtrt.analysis.session import Analysis

TITLE = "Measured against ideal, by module"
CAPTION = "Where perfect kernels would save most: modules, or layers if no module is known."
SECTION, ORDER = "Roofline", 3
TOP = 12
PARTS = (("ideal", "ideal_ms", WEIGHTS), ("headroom", "headroom_ms", LOST), ("limit not known", "unknown_ms", LINE))


def draw(analysis: Analysis) -> go.Figure:
    """One bar per module, of three parts that add up to its layer time."""
    frame = analysis.frame.dropna(subset=["time_ms"])
    frame = frame.assign(
        block=blocks_of(frame),
        # What is quicker than its limit has no headroom, and is not slower than it was measured either.
        ideal_ms=frame["ideal_ms"].clip(upper=frame["time_ms"]),
        unknown_ms=frame["time_ms"].where(frame["ideal_ms"].isna(), 0),
    )
    sums = frame.groupby("block", sort=False)[[column for _, column, _ in PARTS]].sum()
    sums = sums.sort_values(["headroom_ms", "unknown_ms"], ascending=False).head(TOP)
    shown = sums if frame["ideal_ms"].notna().any() else sums.head(0)
    return stack_bars(shown, PARTS, "%{x:.4g} ms", "time of one run, ms", "No layer has a known time and limit.")
