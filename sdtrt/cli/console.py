"""What the terminal shows: tables, errors and a progress bar that becomes plain lines where there is no terminal."""

from __future__ import annotations

import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from sdtrt.errors import FallbackWarning, SdtrtError

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)


# Python drops an interrupt that arrives while a destructor runs, so it is remembered and raised at the next report.
interrupted = threading.Event()


def interrupt(*_: object) -> None:
    """Handle Ctrl-C."""
    interrupted.set()
    raise KeyboardInterrupt


def show_error(error: SdtrtError) -> None:
    """One message: what happened, both sides, what to do."""
    first, *rest = str(error).splitlines()
    err.print(f"[bold red]error[/] [dim]({error.slug})[/] {escape(first)}", soft_wrap=True)
    for line in rest:
        err.print(escape(line), soft_wrap=True)


@contextmanager
def shown_warnings() -> Iterator[None]:
    """Show our own warnings as one line each; those of libraries stay as they are."""
    with warnings.catch_warnings():
        other = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
            if issubclass(category, FallbackWarning):
                err.print(f"[bold yellow]warning[/] {escape(str(message))}", soft_wrap=True)
            else:
                other(message, category, *where, **more)

        warnings.simplefilter("always", FallbackWarning)
        warnings.showwarning = show
        yield


def table(*columns: str, numbers: tuple[str, ...] = ()) -> Table:
    """An empty table in the house style; columns named in `numbers` are set flush right."""
    grid = Table(box=None, header_style="dim", pad_edge=False)
    for column in columns:
        whole = column in numbers or column == columns[0]
        grid.add_column(column, justify="right" if column in numbers else "left", no_wrap=whole)
    return grid


class Countdown:
    """The time that is left of something that takes `expected_s`, from earlier times it was done; None is not known."""

    def __init__(self, expected_s: float | None) -> None:
        self._expected_s = expected_s
        self._share, self._since = 0.0, time.monotonic()

    def reach(self, share: float) -> None:
        """Say what share is done."""
        if share != self._share:
            self._share, self._since = share, time.monotonic()

    def __str__(self) -> str:
        """As "3 min 20 s"; a part that takes longer than ever before keeps what comes after it."""
        if self._expected_s is None:
            return "unknown"
        left_s = self._expected_s * (1 - self._share) - (time.monotonic() - self._since)
        return duration(left_s) if left_s > 0 else "longer than before"


class _Left(ProgressColumn):
    def __init__(self, countdown: Countdown) -> None:
        super().__init__()
        self._countdown = countdown

    def render(self, task: Task) -> Text:
        return Text(str(self._countdown))


@contextmanager
def progress(title: str, countdown: Countdown | None = None) -> Iterator[Callable[[str, float], None]]:
    """Yield `report(label, share)`: a bar with elapsed and remaining time, or one line per new label.

    The remaining time is the countdown's, or without one what follows from the time until now.
    """
    if not out.is_terminal:
        yield _stoppable(_plain(title, countdown))
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("[dim]left[/]"),
        _Left(countdown) if countdown else TimeRemainingColumn(),
    )
    with Progress(*columns, console=out, transient=True) as bars:
        task = bars.add_task(title, total=1.0)

        def show(label: str, share: float) -> None:
            if countdown:
                countdown.reach(share)
            bars.update(task, completed=share, description=f"{title} [dim]{escape(label)}[/]")

        yield _stoppable(show)


def _stoppable(show: Callable[[str, float], None]) -> Callable[[str, float], None]:
    def report(label: str, share: float) -> None:
        if interrupted.is_set():
            raise KeyboardInterrupt
        show(label, share)

    return report


def _plain(title: str, countdown: Countdown | None) -> Callable[[str, float], None]:
    started, last = time.monotonic(), [""]

    def report(label: str, share: float) -> None:
        if label != last[0]:
            last[0] = label
            elapsed = time.monotonic() - started
            left = f", {elapsed / share - elapsed:.0f} s left" if 0.05 < share < 1 else ""
            if countdown:
                countdown.reach(share)
                left = f", left: {countdown}" if share < 1 else ""
            out.print(f"{title} {share:4.0%} {label} ({elapsed:.0f} s{left})", markup=False, soft_wrap=True)

    return report


def size(count: float | None) -> str:
    """Bytes for people."""
    if count is None:
        return "unknown"
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.2f} GB"


def duration(seconds: float | None) -> str:
    """Seconds for people."""
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


def hush() -> None:
    """Silence the progress bars of libraries: ours says what is going on."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()
