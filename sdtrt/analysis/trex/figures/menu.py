"""Many figures in one with a menu to choose from: TREx's dropdown without widgets, which works in a saved page too."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sdtrt.analysis.trex.colors import CLEAR
from sdtrt.analysis.trex.figures.labels import title_text
from sdtrt.analysis.trex.notebook import in_notebook, show

if TYPE_CHECKING:
    import plotly.graph_objects as go

# What a choice changes besides the traces. The menu's entry is the title; an axis that a figure does not use is hidden.
_LAYOUT: dict[str, Any] = {"annotations": [], "barmode": "group", "showlegend": None}


def menu(figures: Mapping[str, go.Figure]) -> go.Figure:
    """One figure that shows the first of `figures` and has a menu of all."""
    import plotly.graph_objects as go

    combined = go.Figure([trace for figure in figures.values() for trace in figure.data])
    owners = [title for title, figure in figures.items() for _ in figure.data]
    first = next(iter(figures), None)
    for trace, owner in zip(combined.data, owners, strict=True):
        trace.visible = owner == first
    layouts = {title: _layout(figure) for title, figure in figures.items()}
    buttons = []
    for title, layout in layouts.items():
        visible = [owner == title for owner in owners]
        buttons.append({"label": title_text(title), "method": "update", "args": [{"visible": visible}, layout]})
    if first is not None:
        combined.update_layout(layouts[first], plot_bgcolor=CLEAR, margin={"t": 100})
    place = {"x": 0, "xanchor": "left", "y": 1.1, "yanchor": "bottom", "showactive": True}
    return combined.update_layout(updatemenus=[{"buttons": buttons, **place}])


def _layout(figure: go.Figure) -> dict[str, Any]:
    own = figure.layout.to_plotly_json()
    flat = any(trace.type in ("bar", "histogram", "scatter", "scattergl") for trace in figure.data)
    axes = {axis: {**own.get(axis, {}), "visible": flat} for axis in ("xaxis", "yaxis")}
    scene = {"scene": own["scene"]} if "scene" in own else {}
    return {**{key: own.get(key, value) for key, value in _LAYOUT.items()}, **axes, **scene}


def shown(figure: go.Figure, do_show: bool) -> go.Figure | None:
    """Show the figure in a notebook, as TREx without returning it, which would show it twice; else return it."""
    if do_show and in_notebook():
        show(figure)
        return None
    return figure
