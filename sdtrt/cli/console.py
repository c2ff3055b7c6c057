"""Terminal output: tables, errors, warnings, sizes, times, and progress bars that become plain lines in a log file.

`rich` shows no progress where there is no terminal, and its `TimeRemainingColumn` knows no earlier builds: the plain
lines and `Countdown` are for these two.
"""

import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.filesize import decimal
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from sdtrt.errors import FallbackWarning, SdtrtError

ReportProgress = Callable[[str, float], None]

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)

# Python drops a KeyboardInterrupt that is raised in a destructor: the next progress report raises it again.
interrupted = threading.Event()


def handle_interrupt(*_: object) -> None:
    """Handle SIGINT (Ctrl-C)."""
    interrupted.set()
    raise KeyboardInterrupt


def show_error(error: SdtrtError) -> None:
    """Print an error: its slug, what happened, what was received and expected, and the hint."""
    first, *rest = str(error).splitlines()
    err.print(f"[bold red]error[/] [dim]({error.slug})[/] {escape(first)}", soft_wrap=True)
    for line in rest:
        err.print(escape(line), soft_wrap=True)


@contextmanager
def show_fallback_warnings() -> Iterator[None]:
    """Print each FallbackWarning as one line; warnings of other categories are shown as before."""
    with warnings.catch_warnings():
        default = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *args: Any, **kwargs: Any) -> None:
            if issubclass(category, FallbackWarning):
                err.print(f"[bold yellow]warning[/] {escape(str(message))}", soft_wrap=True)
            else:
                default(message, category, *args, **kwargs)

        warnings.simplefilter("always", FallbackWarning)
        warnings.showwarning = show
        yield


def table(*columns: str, numbers: tuple[str, ...] = ()) -> Table:
    """An empty table without borders; the columns named in `numbers` are aligned right."""
    grid = Table(box=None, header_style="dim", pad_edge=False)
    for column in columns:
        no_wrap = column in numbers or column == columns[0]
        grid.add_column(column, justify="right" if column in numbers else "left", no_wrap=no_wrap)
    return grid


class Countdown:
    """Remaining time of work that takes `expected_s` seconds according to earlier runs; None where there are none."""

    def __init__(self, expected_s: float | None) -> None:
        self._expected_s = expected_s
        self._share, self._since = 0.0, time.monotonic()

    def reach(self, share: float) -> None:
        """Record the share of the work that is complete, from 0 to 1."""
        if share != self._share:
            self._share, self._since = share, time.monotonic()

    def __str__(self) -> str:
        """Such as "3 min 20 s". Time since the last `reach` counts as work of the current part only."""
        if self._expected_s is None:
            return "unknown"
        left_s = self._expected_s * (1 - self._share) - (time.monotonic() - self._since)
        return format_duration(left_s) if left_s > 0 else "longer than before"


@contextmanager
def progress(title: str, countdown: Countdown | None = None) -> Iterator[ReportProgress]:
    """Yield `report(label, share)`, which updates a bar with elapsed and remaining time, or prints a line per label.

    Without a countdown, the remaining time is extrapolated from the elapsed time.
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("[dim]left[/]"),
        TextColumn("{task.fields[left]}") if countdown else TimeRemainingColumn(),
    )
    print_line = _line_printer(title, countdown)
    with Progress(*columns, console=out, transient=True, disable=not out.is_terminal) as bars:
        task = bars.add_task(title, total=1.0, left=countdown)

        def report(label: str, share: float) -> None:
            if interrupted.is_set():
                raise KeyboardInterrupt
            if countdown:
                countdown.reach(share)
            if out.is_terminal:
                bars.update(task, completed=share, description=f"{title} [dim]{escape(label)}[/]")
            else:
                print_line(label, share)

        yield report


def _line_printer(title: str, countdown: Countdown | None) -> ReportProgress:
    started, last_label = time.monotonic(), ""

    def print_line(label: str, share: float) -> None:
        nonlocal last_label
        if label == last_label:
            return
        last_label, elapsed = label, time.monotonic() - started
        left = f", {elapsed / share - elapsed:.0f} s left" if 0.05 < share < 1 else ""
        if countdown:
            left = f", left: {countdown}" if share < 1 else ""
        out.print(f"{title} {share:4.0%} {label} ({elapsed:.0f} s{left})", markup=False, soft_wrap=True)

    return print_line


def format_bytes(count: float | None) -> str:
    """Such as "829 kB" or "1.73 GB", in powers of 1000."""
    return "unknown" if count is None else decimal(round(count), precision=2 if count >= 1e9 else 0)


def format_duration(seconds: float | None) -> str:
    """Such as "45 s", "3 min 20 s" or "1 h 05 min"; `rich` and Python's timedelta have only "0:03:20"."""
    if seconds is None:
        return "unknown"
    if seconds < 1:
        return "under 1 s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{int(seconds) // 60} min {int(seconds) % 60:02d} s"


def disable_library_progress() -> None:
    """Switch off the progress bars of diffusers and transformers: `progress` shows one for the whole command."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()
