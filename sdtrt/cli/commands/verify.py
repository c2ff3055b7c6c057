"""`sdtrt verify`: the outputs of a bundle compared with eager PyTorch."""

from __future__ import annotations

import math
from typing import Annotated

import typer

from sdtrt.cli import options
from sdtrt.cli.console import disable_library_progress, out, progress, table

EXAMPLES = "Example: [bold]sdtrt verify bundle --steps 20[/]; exit code 1 when a figure is beyond its limit."


def run(
    bundle: options.Bundle,
    model: options.Checkpoint = None,
    steps: options.Steps = 4,
    trust: options.TrustRemoteCode = False,
    full: Annotated[bool, typer.Option("--full", help="Check the largest sizes too, however slow they are.")] = False,
) -> None:
    """Check every file and compare each component and a whole image with eager PyTorch."""
    with progress("verify") as report:
        report("loading", 0.0)
        from sdtrt.errors import VerifyError
        from sdtrt.verification import verify

        disable_library_progress()
        rows = verify.verify(bundle, model, steps, full, report, trust=trust)
    grid = table("compared", "metric", "value", "limit", "", numbers=("value", "limit"))
    for row in rows:
        if math.isnan(row.value) and row.passed:
            continue
        mark = "[green]ok[/]" if row.passed else "[red]too far[/]"
        grid.add_row(row.what, row.metric, f"{row.value:.3g}", f"{row.limit:.3g}", mark)
    out.print(grid)
    for note in dict.fromkeys(f"{row.what}: {row.note}" for row in rows if row.note):
        out.print(note, markup=False)
    passed = sum(row.passed and not math.isnan(row.value) for row in rows)
    if failed := [row.what for row in rows if not row.passed]:
        raise VerifyError("the bundle is too far from eager PyTorch", received="; ".join(failed))
    out.print(f"all files are intact, all {passed} figures are within their limits")
