"""`sdtrt push`: upload a bundle to the Hugging Face hub."""

from __future__ import annotations

from typing import Annotated

import typer

from sdtrt.cli import options
from sdtrt.cli.console import out, progress

EXAMPLES = "Example: [bold]sdtrt push bundle me/sdxl-engines --private[/]; log in once with `hf auth login`."


def run(
    bundle: options.Bundle,
    repo: Annotated[str, typer.Argument(help="Repository on the hub, as owner/name; created if it does not exist.")],
    private: Annotated[bool, typer.Option("--private", help="Create the repository as a private one.")] = False,
    revision: Annotated[str | None, typer.Option(help="Branch to upload to; created if it does not exist.")] = None,
) -> None:
    """Check every file and upload the bundle."""
    with progress("push") as report:
        report("checking and uploading", 0.0)
        from sdtrt.bundle.hub import push

        address = push(bundle, repo, private=private, revision=revision)
    out.print(f"pushed: {address}", soft_wrap=True)
