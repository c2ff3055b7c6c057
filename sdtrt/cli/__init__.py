"""The command line: one file per command, errors turned into messages and exit codes here and nowhere else.

Exit codes: 0 success, 1 an error that sdtrt explains or a gate that did not pass, 2 wrong usage, 130 interrupted.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from sdtrt import __version__
from sdtrt.cli.commands import analyze, bench, build, compare, demo, doctor, generate, pull, push, verify, why
from sdtrt.cli.console import interrupt, interrupted, out, show_error
from sdtrt.errors import SdtrtError

app = typer.Typer(
    name="sdtrt",
    help="Build Stable Diffusion checkpoints into engines, run them as diffusers pipelines, see where time goes.",
    epilog="Begin with [bold]sdtrt demo[/]: it builds, draws and explains a tiny model that comes along, in a minute.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (doctor, build, why, generate, analyze, compare, bench, verify, push, pull, demo):
    app.command(name=command.__name__.rpartition(".")[2], epilog=command.EXAMPLES)(command.run)


def show_version(asked: bool) -> None:
    """Print it and stop."""
    if asked:
        out.print(f"sdtrt {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """What holds for all commands."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit the process."""
    # Read by the libraries when they are first imported; a command that wants their notes sets them itself.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
    interrupted.clear()
    signal.signal(signal.SIGINT, interrupt)
    try:
        app(args=None if arguments is None else list(arguments), standalone_mode=True)
    except SdtrtError as exc:
        show_error(exc)
        sys.exit(1)
    except SystemExit as exc:
        if exc.code == 130:
            show_error(SdtrtError("interrupted", slug="interrupted", hint="run the same command again: it resumes"))
        raise
