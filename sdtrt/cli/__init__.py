"""The command line: registers the commands and maps errors to messages and exit codes.

Exit codes: 0 success, 1 an `SdtrtError` or a failed check, 2 wrong usage, 130 interrupted.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from sdtrt import __version__, registry
from sdtrt.cli import commands
from sdtrt.cli.console import handle_interrupt, interrupted, out, show_error
from sdtrt.errors import SdtrtError

app = typer.Typer(
    name="sdtrt",
    help="Build engines from Stable Diffusion checkpoints, run them as diffusers pipelines, analyze where time goes.",
    epilog="Start with [bold]sdtrt demo[/]: it builds, runs and analyzes an included tiny model in about a minute.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for name in dict.fromkeys((*commands.ORDER, *registry.names(commands.__name__))):
    command = registry.load(commands.__name__, name)
    app.command(name=name, epilog=command.EXAMPLES)(command.run)


def show_version(requested: bool) -> None:
    """Print the version and exit."""
    if requested:
        out.print(f"sdtrt {__version__}")
        raise typer.Exit


@app.callback()
def app_options(
    version: Annotated[
        bool, typer.Option("--version", callback=show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Options of `sdtrt` itself."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit the process."""
    # The libraries read these when they are first imported.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
    interrupted.clear()
    signal.signal(signal.SIGINT, handle_interrupt)
    try:
        app(args=None if arguments is None else list(arguments), standalone_mode=True)
    except SdtrtError as exc:
        show_error(exc)
        sys.exit(1)
    except SystemExit as exc:
        if exc.code == 130:
            show_error(SdtrtError("interrupted", slug="interrupted", hint="run the same command again: it resumes"))
        raise
