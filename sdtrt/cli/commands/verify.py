"""`sdtrt verify`: a bundle against eager PyTorch."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import typer

from sdtrt.cli.console import hush, out, progress, table

EXAMPLES = "Example: [bold]sdtrt verify bundle --steps 20[/]; exit code 1 when a figure is beyond its limit."


def run(
    bundle: Annotated[Path, typer.Argument(help="Folder of the bundle.")],
    model: Annotated[str | None, typer.Option(help="Where the checkpoint lies now, if not where it was.")] = None,
    steps: Annotated[int, typer.Option(min=1, help="Steps of the image.")] = 4,
    trust: Annotated[bool, typer.Option("--trust", help="Load native code that was pulled from a hub.")] = False,
    full: Annotated[bool, typer.Option("--full", help="Also the largest sizes, however long they take.")] = False,
) -> None:
    """Check every file and compare each component and a whole image with eager PyTorch."""
    with progress("verify") as report:
        report("loading", 0.0)
        from sdtrt.errors import VerifyError
        from sdtrt.verification import verify

        hush()
        rows = verify.verify(bundle, model, steps, full, report, trust=trust)
    grid = table("compared", "metric", "value", "limit", "", numbers=("value", "limit"))
    for row in rows:
        mark = "[green]ok[/]" if row.passed else "[red]too far[/]"
        if math.isnan(row.value) and row.passed:
            continue
        grid.add_row(row.what, row.metric, f"{row.value:.3g}", f"{row.limit:.3g}", mark)
    out.print(grid)
    for note in dict.fromkeys(f"{row.what}: {row.note}" for row in rows if row.note):
        out.print(note, markup=False)
    passed = sum(row.passed and not math.isnan(row.value) for row in rows)
    if failed := [row.what for row in rows if not row.passed]:
        raise VerifyError("the bundle is too far from eager PyTorch", received="; ".join(failed))
    out.print(f"every file is whole, all {passed} figures are within their limits")
