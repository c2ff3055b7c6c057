"""Text and colors of figures. Plotly reads tags and entities: what comes from a table is escaped.

Of a title only `<br>` is kept, which TREx's notebooks use to break lines.
"""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from typing import Any

import pandas as pd

from sdtrt.analysis.trex.colors import UNKNOWN_KEY_COLOR, default_pallete

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


def categories(values: pd.Series, colormap: Colormap | None) -> Colormap:
    """`colormap`, or a color for each distinct value in the order of appearance."""
    if colormap:
        return colormap
    keys = dict.fromkeys(map(key_of, values))
    return {key: default_pallete[min(index, len(default_pallete) - 1)] for index, key in enumerate(keys)}


def key_of(value: Any) -> Any:
    """The value as a key of a dict."""
    return tuple(value) if isinstance(value, list) else value
