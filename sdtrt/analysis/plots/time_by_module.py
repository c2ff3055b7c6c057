"""Treemap: the layer time of every module, inside the modules that contain it; without modules, of kinds and layers."""

from collections import Counter, defaultdict

import plotly.graph_objects as go

from sdtrt.analysis.colors import KIND_COLORS, NEUTRAL
from sdtrt.analysis.module_paths import NO_MODULE
from sdtrt.analysis.plot_support.layout import NOT_TIMED, finish, label
from sdtrt.analysis.plot_support.modules import paths_of
from sdtrt.analysis.session import Analysis

TITLE = "Layer time by module"
CAPTION = "Areas are layer times; the color is the kind that takes most of it. Click a module to look inside."
SECTION, ORDER, WIDE = "Time", 1, True


def draw(analysis: Analysis) -> go.Figure:
    """Nested areas: the engine and its module paths, or all engines around them when there are several."""
    timed = analysis.frame.dropna(subset=["time_ms"])
    times: dict[tuple[str, ...], Counter[str]] = defaultdict(Counter)
    first = 0 if timed["component"].nunique() > 1 else 1
    for path, kind, ms in zip(paths_of(timed), timed["kind"], timed["time_ms"], strict=True):
        for depth in range(first, len(path) + 1):
            times[path[:depth]][kind] += ms
    ids = {path: str(index) for index, path in enumerate(times)}
    kinds = {path: max(time, key=time.__getitem__) for path, time in times.items()}
    colors = [KIND_COLORS[kind] if path[1:] not in ((), (NO_MODULE,)) else NEUTRAL for path, kind in kinds.items()]
    figure = go.Figure()
    if times:
        figure.add_treemap(
            ids=list(ids.values()),
            parents=[ids.get(path[:-1], "") if path else "" for path in times],
            labels=[label(path[-1], 60) if path else "all engines" for path in times],
            values=[time.total() for time in times.values()],
            branchvalues="total",
            maxdepth=5 - first,
            customdata=[[label(".".join(path[1:]), 90), kind] for path, kind in kinds.items()],
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
    return finish(figure, 580, "" if times else NOT_TIMED).update_layout(margin_t=32)
