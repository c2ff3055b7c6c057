"""Names from files escaped for XML, Markdown tables and spreadsheets."""

import html
import re
from collections.abc import Iterable, Sequence
from math import isfinite

from sdtrt.analysis.summary import number

# What XML 1.0, and with it a workbook, cannot hold, not even escaped.
_ILLEGAL = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
# Spreadsheets run a cell that starts with one of these, even from a CSV file.
_FORMULA = ("=", "+", "-", "@", "\t", "\n")


def legal(text: str) -> str:
    """The text with characters that XML cannot hold replaced by U+FFFD."""
    return _ILLEGAL.sub("\ufffd", text)


def spreadsheet(text: str) -> str:
    """The text with an apostrophe before it where a spreadsheet would read a formula."""
    text = legal(text).replace("\r", "\n")  # a bare \r ends a row of CSV for some readers and is not quoted by writers
    return f"'{text}" if text.startswith(_FORMULA) else text


def markdown(value: object) -> str:
    """A value as one cell of a Markdown table, shown literally: no markup, no link, no mention, no line break."""
    if value is None or (isinstance(value, float) and not isfinite(value)):
        return "unknown"
    text = number(value) if isinstance(value, float) else html.escape(legal(str(value)), quote=False)
    return re.sub(r"([|\\`*_~\[\]#@])", r"\\\1", " ".join(text.split()))


def markdown_table(columns: Sequence[str], rows: Iterable[Sequence[object]], numbers: Sequence[str] = ()) -> str:
    """A Markdown table; the columns named in `numbers` are set flush right."""
    rule = ["---:" if column in numbers else "---" for column in columns]
    body = [[markdown(value) for value in row] for row in rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in ([markdown(c) for c in columns], rule, *body))
