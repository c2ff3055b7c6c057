"""`sdtrt pull`: a bundle from the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sdtrt.cli.console import out, progress, size

EXAMPLES = "Example: [bold]sdtrt pull someone/sdxl-engines@main --out bundle[/]"


def run(
    repo: Annotated[str, typer.Argument(help="owner/name, or owner/name@revision.")],
    bundle: Annotated[Path, typer.Option("--out", "-o", help="Folder of the bundle.")],
) -> None:
    """Download a bundle, compare every file with its sha256, and put it in its place."""
    with progress("pull") as report:
        report("downloading and checking", 0.0)
        from sdtrt.bundle import provenance
        from sdtrt.bundle.hub import pull

        made = pull(repo, bundle)
    manifest, came = made.manifest, provenance.read_origin(made)
    total = sum(f.bytes for c in manifest.components.values() for f in c.files.values())
    out.print(f"{manifest.model} for {manifest.backend}, {manifest.precision}: {size(total)}", soft_wrap=True)
    out.print(f"from {repo.partition('@')[0]} at {came.commit[:12] if came else 'unknown'}", soft_wrap=True)
    out.print(f"bundle: [bold]{made.path}[/]", soft_wrap=True)
