"""Treemap: the layer time of every diffusers module, inside the modules that contain it."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence

import pandas as pd
import plotly.graph_objects as go

from sdtrt.analysis._colors import KIND_COLORS, NEUTRAL
from sdtrt.analysis.plots._layout import finish, label
from sdtrt.plan import Plan

TITLE = "Layer time by module"
CAPTION = "Areas are layer times; the colour is the kind that takes most of it. Click a module to look inside."
UNKNOWN = "(no module)"
# A bare index says nothing in a box of its own: "attentions.0.norm" is two steps.
STEP = re.compile(r"\.(?!\d)")


def draw(frame: pd.DataFrame, plans: Sequence[Plan]) -> go.Figure:
    """Nested areas: all engines, one engine, then its module path."""
    timed = frame.dropna(subset=["time_ms"])
    times: dict[tuple[str, ...], Counter[str]] = defaultdict(Counter)
    for component, module, kind, ms in timed[["component", "module", "kind", "time_ms"]].itertuples(index=False):
        path = (component, *(STEP.split(module) if isinstance(module, str) else (UNKNOWN,)))
        for depth in range(len(path) + 1):
            times[path[:depth]][kind] += ms
    ids = {path: str(index) for index, path in enumerate(times)}
    kinds = {path: max(time, key=time.__getitem__) for path, time in times.items()}
    colors = [KIND_COLORS[kind] if path[1:] not in ((), (UNKNOWN,)) else NEUTRAL for path, kind in kinds.items()]
    figure = go.Figure()
    if times:
        figure.add_treemap(
            ids=list(ids.values()),
            parents=[ids[path[:-1]] if path else "" for path in times],
            labels=[label(path[-1]) if path else "all engines" for path in times],
            values=[time.total() for time in times.values()],
            branchvalues="total",
            maxdepth=5,
            customdata=[[label(".".join(path[1:])), kind] for path, kind in kinds.items()],
            marker={
                "colors": colors,
                "line": {"width": 1, "color": "rgba(0,0,0,.4)"},
                "pad": {"t": 20, "l": 3, "r": 3},
            },
            outsidetextfont={"color": "white"},
            texttemplate="%{label}<br>%{value:.3g} ms",
            hovertemplate="%{label}<br>%{customdata[0]}<br>%{value:.4g} ms, %{percentParent:.1%} of its parent"
            "<br>mostly %{customdata[1]}<extra></extra>",
        )
    # The path of the module that was clicked appears in the upper margin.
    return finish(figure, 580, "" if times else "No layer was timed.").update_layout(margin_t=32)
