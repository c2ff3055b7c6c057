"""`sdtrt push`: a bundle to the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sdtrt.cli.console import out, progress

EXAMPLES = "Example: [bold]sdtrt push bundle me/sdxl-engines --private[/]; log in once with `hf auth login`."


def run(
    bundle: Annotated[Path, typer.Argument(help="Folder of the bundle.")],
    repo: Annotated[str, typer.Argument(help="owner/name on the hub; made if there is none.")],
    private: Annotated[bool, typer.Option("--private", help="For you alone, if it has to be made.")] = False,
    revision: Annotated[str | None, typer.Option(help="Branch; made if there is none.")] = None,
) -> None:
    """Check every file and upload the bundle."""
    with progress("push") as report:
        report("checking and uploading", 0.0)
        from sdtrt.bundle.hub import push

        address = push(bundle, repo, private=private, revision=revision)
    out.print(f"pushed: {address}", soft_wrap=True)
