"""`sdtrt why`: what makes a rebuild of a bundle necessary."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sdtrt.cli.console import hush, out, progress, table

if TYPE_CHECKING:
    from sdtrt.builder.rebuild_reasons import Reasons

EXAMPLES = "Example: [bold]sdtrt why bundle --precision fp16[/]; without options, the bundle's own recipe."


def run(
    bundle: Annotated[Path, typer.Argument(help="Folder of the bundle.")],
    model: Annotated[str | None, typer.Option(help="Where the checkpoint lies now, if not where it was.")] = None,
    config: Annotated[Path | None, typer.Option(help="YAML recipe, or the name of a shipped one.")] = None,
    backend: Annotated[str | None, typer.Option(help="Engine backend; see `sdtrt doctor`.")] = None,
    precision: Annotated[str | None, typer.Option(help="fp32, fp16, fp8 or int8.")] = None,
    profile: Annotated[list[str] | None, typer.Option(help="Sizes; may be repeated.")] = None,
    lora: Annotated[list[str] | None, typer.Option(help="LoRA, as FILE or FILE:SCALE; may be repeated.")] = None,
    controlnet: Annotated[list[str] | None, typer.Option(help="ControlNet, hub id or folder; may be repeated.")] = None,
    component: Annotated[list[str] | None, typer.Option(help="Only this component; may be repeated.")] = None,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit on the hub.")] = None,
    variant: Annotated[str | None, typer.Option(help='Weight variant, such as "fp16".')] = None,
) -> None:
    """Say what makes a rebuild necessary: what differs from what a build here, now, would make."""
    with progress("why") as report:
        report("looking at the model", 0.0)
        from sdtrt.builder.rebuild_reasons import why

        hush()
        found = why(
            bundle,
            config,
            model=model,
            backend=backend,
            precision=precision,
            profiles=profile or None,
            lora=lora or None,
            controlnet=controlnet or None,
            components=component or None,
            revision=revision,
            variant=variant,
        )
    show(found)


def show(found: tuple[Reasons, ...]) -> None:
    """A line for every field that differs, what could not be compared, and what a build would do."""
    grid = table("component", "differs in", "built", "now")
    for reasons in found:
        rows = [(d.field, d.built, d.now) for d in reasons.differs]
        rows += [("files", reasons.damage, "")] if reasons.damage else []
        for field, built, now in rows or [("nothing", "", "")]:
            grid.add_row(reasons.component, field, built, now)
    out.print(grid)
    for field, cause in dict.fromkeys(item for reasons in found for item in reasons.unknown.items()):
        out.print(f"[yellow]not compared[/] {field}: {cause}", soft_wrap=True)
    anew = [reasons.component for reasons in found if reasons.rebuild]
    open_ = [reasons.component for reasons in found if reasons.rebuild is None]
    if anew:
        out.print(f"to be built anew: {', '.join(anew)}", soft_wrap=True)
    if open_:
        out.print(f"as far as is known, up to date: {', '.join(open_)}", soft_wrap=True)
    if not anew and not open_:
        out.print("up to date")
