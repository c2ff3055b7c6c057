"""What differs between a notebook and a terminal: how tables, figures and text are shown.

IPython is used when it runs and never imported otherwise; outside a notebook tables are written as text and figures
are only returned.
"""

import html
import importlib
import inspect
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

__all__ = ["display_df", "section_header", "set_table_display_backend", "set_wide_display"]


def in_notebook() -> bool:
    """Whether the code runs in a Jupyter kernel."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return shell is not None and hasattr(shell, "kernel")


def _display_module() -> ModuleType:
    return importlib.import_module("IPython.display")


def write(text: str) -> None:
    """One line, or several, to the standard output."""
    sys.stdout.write(text + "\n")


def show(figure: Any, do_show: bool = True) -> Any:
    """Show a plotly figure below the cell if `do_show`, in a notebook only, and return it."""
    if do_show and in_notebook():
        figure.show()
    return figure


def section_header(title: str) -> Any:
    """A heading that stands out, for a notebook's output; the text itself outside of one."""
    if not in_notebook():
        return title
    style = "text-align:center;background:#2f4b5c;color:white;padding:16px;font-size:1.8em;"
    return _display_module().HTML(f'<div style="{style}">{html.escape(title)}</div>')


def set_wide_display(width_pct: int = 90) -> None:
    """Let the notebook's cells take `width_pct` percent of the window."""
    if in_notebook():
        style = f".container, .jp-Notebook {{ max-width: none; width: {int(width_pct)}% !important; }}"
        module = _display_module()
        module.display(module.HTML(f"<style>{style}</style>"))


def _display(df: Any) -> None:
    if in_notebook():
        _display_module().display(df)
    else:
        write(df.to_string())


_backend: Callable[..., Any] = _display


def set_table_display_backend(tbl_display_fn: Callable[..., Any]) -> None:
    """Show all tables with `tbl_display_fn(df)`, such as `itables.show`."""
    global _backend
    _backend = tbl_display_fn


def display_df(df: Any, **kwargs: Any) -> None:
    """Show a table, or a styled one; arguments that the backend does not know are left out."""
    accepts = inspect.signature(_backend).parameters.values()
    everything = any(p.kind is p.VAR_KEYWORD for p in accepts)
    names = {p.name for p in accepts}
    _backend(df, **{key: value for key, value in kwargs.items() if everything or key in names})
