"""`sdtrt pull`: download a bundle from the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sdtrt.cli.console import format_bytes, out, progress

EXAMPLES = "Example: [bold]sdtrt pull someone/sdxl-engines@main --out bundle[/]"


def run(
    repo: Annotated[str, typer.Argument(help="Repository on the hub, as owner/name or owner/name@revision.")],
    bundle: Annotated[Path, typer.Option("--out", "-o", help="Bundle folder to write.")],
) -> None:
    """Download a bundle and check the SHA-256 of every file."""
    with progress("pull") as report:
        report("downloading and checking", 0.0)
        from sdtrt.bundle import provenance
        from sdtrt.bundle.hub import pull

        pulled = pull(repo, bundle)
    manifest, origin = pulled.manifest, provenance.read_origin(pulled)
    total_bytes = sum(f.bytes for c in manifest.components.values() for f in c.files.values())
    size = format_bytes(total_bytes)
    out.print(f"{manifest.model} for {manifest.backend}, {manifest.precision}: {size}", soft_wrap=True)
    out.print(f"from {repo.partition('@')[0]} at {origin.commit[:12] if origin else 'unknown'}", soft_wrap=True)
    out.print(f"bundle: [bold]{pulled.path}[/]", soft_wrap=True)
