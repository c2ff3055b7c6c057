"""What all plots share: safe labels, sizes and the look that the page's theme is laid over."""

import html
from collections.abc import Iterable, Iterator, Sequence

import pandas as pd
import plotly.graph_objects as go

from sdtrt.analysis.colors import ACTIVATIONS, KIND_COLORS, WEIGHTS

NOT_TIMED = "No layer was timed."
# A trace of this meta has the number of its layer, counted from the first of the analysis, first in `customdata`.
LAYERS = "layers"
NAME_CHARS = 72
# Name, column and color of what a layer reads and writes.
FOOTPRINT_PARTS = (("weights", "weight_bytes", WEIGHTS), ("activations", "io_bytes", ACTIVATIONS))


def label(text: object, length: int = 0) -> str:
    """`text` as plotly shows it literally, since plotly reads tags and entities; cut in the middle to `length`."""
    line = " ".join(str(text)[:4000].split())
    if 0 < length < len(line):
        line = f"{line[: length // 3]}…{line[len(line) - length + length // 3 + 1 :]}"
    return html.escape(line, quote=False)


def small(text: str) -> str:
    """A second, smaller line below the title of an axis."""
    return f'<br><span style="font-size:11px">{text}</span>'


def by_kind(frame: pd.DataFrame) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """Kind, color and rows of every kind that occurs, in the order of the vocabulary."""
    for kind, color in KIND_COLORS.items():
        rows = frame[frame["kind"] == kind]
        if len(rows):
            yield kind, color, rows


def names_of(rows: pd.DataFrame) -> list[list[object]]:
    """Number and name of each layer, as `customdata`."""
    return [[int(index), label(name, NAME_CHARS)] for index, name in zip(rows.index, rows["name"], strict=True)]


def layer_bars(frame: pd.DataFrame, parts: Iterable[tuple[str, str, pd.Series, str]], title: str) -> go.Figure:
    """A bar per layer, at its place in the engine's order: from 1, as in the layer table.

    `parts` are stacked: name, color, values by layer, and plotly's template of a value in its tooltip.
    """
    figure = go.Figure()
    for name, color, values, text in parts:
        figure.add_bar(
            name=name,
            meta=LAYERS,
            x=[int(i) + 1 for i in values.index],
            y=values.tolist(),
            width=1,
            marker={"color": color, "line": {"width": 0}},
            customdata=names_of(frame.loc[values.index]),
            hovertemplate=f"%{{customdata[1]}}<br>{text}<extra></extra>",
        )
    figure.update_layout(barmode="stack", bargap=0, dragmode="zoom")
    figure.update_xaxes(title="layer", range=[0.5, max(len(frame), 1) + 0.5])
    figure.update_yaxes(title=title, fixedrange=True)
    return figure


def name_bars(figure: go.Figure, names: Sequence[str], title: str) -> None:
    """Write the names of horizontal bars at 0, 1, 2, ... above them, where they also fit on a narrow screen."""
    place = {"x": 0, "xref": "paper", "xanchor": "left", "yanchor": "bottom", "showarrow": False}
    for position, name in enumerate(names):
        figure.add_annotation(text=name, y=position - 0.22, **place)
    figure.update_traces(orientation="h", width=0.44)
    figure.update_xaxes(title=title, automargin=True, fixedrange=True)
    figure.update_yaxes(range=[len(names) - 0.6, -0.9], visible=False, fixedrange=True)


def finish(figure: go.Figure, height: int, missing: str = "") -> go.Figure:
    """Apply the common layout; `missing` is shown in place of data."""
    clear = "rgba(0,0,0,0)"
    legend = {"orientation": "h", "x": 0, "y": 1, "yanchor": "bottom", "traceorder": "normal"}
    figure.update_layout(template="none", height=height, paper_bgcolor=clear, plot_bgcolor=clear, legend=legend)
    figure.update_layout(margin={"l": 8, "r": 20, "t": 8, "b": 8}, font={"family": "system-ui, sans-serif", "size": 13})
    figure.update_xaxes(automargin=True, title_font_size=13)
    figure.update_yaxes(automargin=True, title_font_size=13)
    if missing:
        figure.update_layout(xaxis_visible=False, yaxis_visible=False, height=120)
        figure.add_annotation(text=missing, showarrow=False, x=0.5, y=0.5, xref="paper", yref="paper")
    return figure


def stack_bars(
    sums: pd.DataFrame, parts: Sequence[tuple[str, str, str]], value: str, title: str, missing: str
) -> go.Figure:
    """Stacked horizontal bars.

    Args:
        sums: a row per bar, with the bar's name as index.
        parts: (name, column, color) of each part of a bar.
        value: plotly's template of a part's value in its tooltip, such as "%{x:.4g} ms".
        title: of the value axis.
        missing: shown if there are no bars.
    """
    figure = go.Figure()
    for name, column, color in parts if len(sums) else ():
        figure.add_bar(
            name=label(name, 24),
            x=sums[column].tolist(),
            y=list(range(len(sums))),
            marker={"color": color},
            hovertemplate=f"{label(name, 40)}: {value}<extra></extra>",
        )
    name_bars(figure, [label(block, 44) for block in sums.index], title)
    figure.update_layout(barmode="stack", showlegend=True)
    return finish(figure, 110 + 38 * len(sums), "" if len(sums) else missing)
