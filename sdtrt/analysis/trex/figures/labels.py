"""Text, colors and background of figures. Plotly reads tags and entities: what comes from a table is escaped.

Of a title only `<br>` is kept, which TREx's notebooks use to break lines.
"""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pandas as pd

from sdtrt.analysis.trex.colors import CLEAR, GRID_COLOR, UNKNOWN_KEY_COLOR, default_pallete

if TYPE_CHECKING:
    import plotly.graph_objects as go

Colormap = Mapping[Any, str]


def escaped(text: object) -> str:
    """`text` as plotly shows it literally, in one line."""
    return html.escape(" ".join(str(text).split()), quote=False)


def title_text(text: object) -> str:
    """A title with its line breaks; every other tag is shown as it is written."""
    return "<br>".join(escaped(line) for line in re.split(r"(?i)<br\s*/?>|\n", str(text)))


def color_of(colormap: Colormap | None, key: Any) -> str:
    """Color of a category; gray for one without."""
    try:
        return (colormap or {})[key]
    except KeyError:
        return UNKNOWN_KEY_COLOR


def colors_of(values: pd.Series, colormap: Colormap | None) -> list[str]:
    """Color of each value; without `colormap` each distinct value has its own, in the order of appearance."""
    keys = [tuple(value) if isinstance(value, list) else value for value in values]
    if not colormap:
        last = len(default_pallete) - 1
        colormap = {key: default_pallete[min(index, last)] for index, key in enumerate(dict.fromkeys(keys))}
    return [color_of(colormap, key) for key in keys]


def trex_base_layout(fig: go.Figure, gridcolor: str | None = None) -> go.Figure:
    """White background and a light grid."""
    grid = {"gridcolor": gridcolor or GRID_COLOR, "zerolinecolor": gridcolor or GRID_COLOR}
    return fig.update_layout(xaxis=grid, yaxis=grid, plot_bgcolor=CLEAR)
