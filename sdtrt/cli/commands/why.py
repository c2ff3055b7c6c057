"""`sdtrt why`: which components of a bundle are out of date, and what differs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sdtrt.cli import options
from sdtrt.cli.console import disable_library_progress, out, progress, table

if TYPE_CHECKING:
    from sdtrt.builder.key_comparison import Reasons

EXAMPLES = "Example: [bold]sdtrt why bundle --precision fp16[/]; without options it uses the bundle's recipe."


def run(
    bundle: options.Bundle,
    model: options.Checkpoint = None,
    config: options.Recipe = None,
    backend: options.Backend = None,
    precision: options.Precision = None,
    profiles: options.Profiles = None,
    lora: options.Loras = None,
    controlnet: options.ControlNets = None,
    components: options.Components = None,
    revision: options.Revision = None,
    variant: options.Variant = None,
) -> None:
    """Compare a bundle with what a build on this machine would make now, and name what needs a rebuild."""
    with progress("why") as report:
        report("looking at the model", 0.0)
        from sdtrt.builder.rebuild_reasons import why

        disable_library_progress()
        reasons = why(
            bundle,
            config,
            model=model,
            backend=backend,
            precision=precision,
            profiles=profiles or None,
            lora=lora or None,
            controlnet=controlnet or None,
            components=components or None,
            revision=revision,
            variant=variant,
        )
    show_reasons(reasons)


def show_reasons(reasons: tuple[Reasons, ...]) -> None:
    """Print a row for every field that differs, the fields that could not be compared, and what a build would do."""
    grid = table("component", "differs in", "built", "now")
    for component in reasons:
        rows = [(d.field, d.built, d.now) for d in component.differs]
        rows += [("files", component.damage, "")] if component.damage else []
        for field, built, now in rows or [("nothing", "", "")]:
            grid.add_row(component.component, field, built, now)
    out.print(grid)
    for field, cause in dict.fromkeys(item for component in reasons for item in component.unknown.items()):
        out.print(f"[yellow]not compared[/] {field}: {cause}", soft_wrap=True)
    outdated = [component.component for component in reasons if component.rebuild]
    undecided = [component.component for component in reasons if component.rebuild is None]
    if outdated:
        out.print(f"to be built anew: {', '.join(outdated)}", soft_wrap=True)
    if undecided:
        out.print(f"as far as is known, up to date: {', '.join(undecided)}", soft_wrap=True)
    if not outdated and not undecided:
        out.print("up to date")
