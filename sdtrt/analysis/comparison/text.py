"""A comparison as JSON for programs and as Markdown that is short enough for a comment on a pull request."""

import json
from collections.abc import Iterable, Sequence
from typing import Any

from sdtrt.analysis.comparison.compare import Change, Comparison, Group, PlanDiff, Row
from sdtrt.analysis.comparison.gate import MODULE_DEPTH, Check
from sdtrt.analysis.escape import markdown, markdown_table
from sdtrt.analysis.module_paths import NO_MODULE
from sdtrt.analysis.report.layer_data import elide
from sdtrt.analysis.summary import number
from sdtrt.plan.layers import Layer

JSON_VERSION = 1
TOP_MODULES = 10
TOP_GROUPS = 3
NAME_LENGTH = 70
NUMBERS = ("before, ms", "after, ms", "change, ms", "change", "speed-up")


def comparison_to_json(comparisons: Sequence[Comparison], checks: Sequence[Check] = ()) -> str:
    """All engines, modules, kinds and groups of layers, and the gate's checks; what is not known is null."""
    data = {
        "format": JSON_VERSION,
        "comparisons": [
            {
                **_fields(c, "baseline", "candidate", "removed", "added"),
                "engines": [_engine(engine) for engine in c.engines],
            }
            for c in comparisons
        ],
        "checks": [_check(check) for check in checks],
    }
    return json.dumps(data, indent=1, allow_nan=False) + "\n"


def comparison_to_markdown(comparisons: Sequence[Comparison], checks: Sequence[Check] = ()) -> str:
    """The verdict, the totals, and the modules and groups of layers that changed most."""
    sections = ["# Engine comparison", *_verdict(checks)]
    for comparison in comparisons:
        sections.append(f"## {markdown(comparison.baseline)} → {markdown(comparison.candidate)}")
        totals = [(e.component, what, *figures(x)) for e in comparison.engines for what, x in totals_of(e)]
        sections.append(markdown_table(("engine", "time", *NUMBERS), totals, NUMBERS))
        for engine in comparison.engines:
            sections += _changes(engine)
        unpaired = unpaired_engines(comparison)
        sections += [f"Only in the {side}: {', '.join(map(markdown, names))}." for side, names in unpaired]
    return "\n\n".join(sections) + "\n"


def totals_of(engine: PlanDiff) -> list[tuple[str, Change]]:
    """Wall time, where both sides have it, and the sum of the layers."""
    wall = [("wall", engine.wall)] if engine.wall.delta_ms is not None else []
    return [*wall, ("layers", engine.layers)]


def largest_changes(engine: PlanDiff, top: int) -> tuple[str, list[Row]]:
    """What changed most and what it is: modules, or layers of an engine in which no module is known."""
    rows = engine.modules(MODULE_DEPTH)
    if all(row.name == NO_MODULE for row in rows):
        rows = tuple(Row(g.before_ms, g.after_ms, g.main.name, len(g.before), len(g.after)) for g in engine.groups)
        rows = tuple(sorted(rows, key=lambda row: -abs(row.delta_ms or 0)))
        return "layer", [row for row in rows[:top] if row.delta_ms]
    return "module", [row for row in rows[:top] if row.delta_ms]


def unpaired_engines(comparison: Comparison) -> list[tuple[str, tuple[str, ...]]]:
    """Engines without a counterpart, by the side that has them."""
    sides = (("baseline", comparison.removed), ("candidate", comparison.added))
    return [(side, names) for side, names in sides if names]


def figures(change: Change) -> tuple[str, ...]:
    """Before, after, their difference in ms and in percent, and the speed-up, as text."""
    delta, percent, speedup = change.delta_ms, change.change_pct, change.speedup
    return (
        number(change.before_ms),
        number(change.after_ms),
        "unknown" if delta is None else f"{delta:+.3g}",
        "" if percent is None else f"{percent:+.1f} %",
        "" if speedup is None else f"{speedup:.2f}x",
    )


def describe(group: Group) -> str:
    """What became of what: "3 layers became 1: conv_in"."""
    before, after = len(group.before), len(group.after)
    if not (before and after):
        return f"only in the {'baseline' if before else 'candidate'}: {group.main.name}"
    became = "" if before == after == 1 else f"{before} layer{'s' * (before > 1)} became {after}: "
    return became + group.main.name


def arrow(sides: tuple[tuple[str, ...], tuple[str, ...]]) -> str:
    """Both sides in a line, as "float32 → float16"."""
    return " → ".join(", ".join(side) or "unknown" for side in sides)


def _verdict(checks: Sequence[Check]) -> Iterable[str]:
    if not checks:
        return
    failed = [c for c in checks if c.status == "slower"]
    unknown = sum(c.status != "not compared" and c.noise_ms is None for c in checks)
    yield f"**{len(failed)} of {len(checks)} checks failed**" if failed else f"**All {len(checks)} checks passed**"
    if unknown:
        yield f"For {unknown} of them single figures were recorded: their noise is unknown and the percentage decided."
    if failed:
        shown = failed[:TOP_MODULES]
        columns = ("candidate", "engine", "slower", "figures")
        yield markdown_table(columns, [(c.candidate, c.component, c.what, c.reason) for c in shown])
        if len(failed) > len(shown):
            yield f"{len(failed) - len(shown)} more failed."


def _changes(engine: PlanDiff) -> Iterable[str]:
    for difference in engine.differences:
        yield f"Not alike in {markdown(engine.component)}: {markdown(difference)}"
    if engine.layers.delta_ms is None:
        yield f"{markdown(engine.component)}: the layers were not timed on both sides."
    noun, rows = largest_changes(engine, TOP_MODULES)
    if rows:
        yield f"### {markdown(engine.component)}: {noun}s that changed most"
        yield markdown_table((noun, "layers", *NUMBERS), [_row(row) for row in rows], NUMBERS)
    lists = (
        ("fused or split", [g for g in engine.groups if g.before and g.after and len(g.before) != len(g.after)]),
        ("precision changed", [g for g in engine.groups if g.precision_changed]),
        ("kernel changed", [g for g in engine.groups if g.kernel_changed]),
        ("without a match", list(engine.unmatched)),
    )
    lines = [_line(noun, groups) for noun, groups in lists if groups]
    if lines:
        yield "\n".join(lines)


def _row(row: Row) -> tuple[str, ...]:
    layers = str(row.layers_before) if row.layers_before == row.layers_after else None
    return (elide(row.name, NAME_LENGTH), layers or f"{row.layers_before} → {row.layers_after}", *figures(row))


def _line(noun: str, groups: Sequence[Group]) -> str:
    ordered = sorted(groups, key=lambda g: -abs(g.delta_ms or 0))
    shown = [f"{markdown(elide(describe(g), NAME_LENGTH))} ({_figure(g, noun)})" for g in ordered[:TOP_GROUPS]]
    more = f"; {len(groups) - TOP_GROUPS} more" if len(groups) > TOP_GROUPS else ""
    deltas = [g.delta_ms for g in groups if g.delta_ms is not None]
    together = f", together {sum(deltas):+.3g} ms" if deltas else ""
    return f"- **{len(groups)} {noun}**{together}: {'; '.join(shown)}{more}"


def _figure(group: Group, noun: str) -> str:
    delta = "time unknown" if group.delta_ms is None else f"{group.delta_ms:+.3g} ms"
    return f"{markdown(arrow(group.precisions))}, {delta}" if noun == "precision changed" else delta


def _engine(engine: PlanDiff) -> dict[str, Any]:
    return {
        "component": engine.component,
        "differences": engine.differences,
        "wall": _times(engine.wall),
        "layers": _times(engine.layers),
        "kinds": [_module(row) for row in engine.kinds],
        "modules": [_module(row) for row in engine.modules()],
        "groups": [_members(group) for group in engine.groups],
    }


def _fields(value: object, *names: str) -> dict[str, Any]:
    return {name: getattr(value, name) for name in names}


def _times(change: Change) -> dict[str, float | None]:
    return _fields(change, "before_ms", "after_ms", "delta_ms", "change_pct", "speedup")


def _module(row: Row) -> dict[str, Any]:
    return {"name": row.name, **_times(row), **_fields(row, "layers_before", "layers_after")}


def _members(group: Group) -> dict[str, Any]:
    return {
        "by": group.by,
        "module": group.module,
        "kind": group.main.kind,
        **_times(group),
        **_fields(group, "precision_changed", "kernel_changed"),
        "before": [_layer(layer) for layer in group.before],
        "after": [_layer(layer) for layer in group.after],
        "nodes": group.nodes,
    }


def _layer(layer: Layer) -> dict[str, Any]:
    return _fields(layer, "name", "kind", "precision", "kernel", "time_ms")


def _check(check: Check) -> dict[str, Any]:
    return {
        **_fields(check, "candidate", "component", "what", "status"),
        "before_ms": check.before and check.before.ms,
        "after_ms": check.after and check.after.ms,
        **_fields(check, "allowed_ms", "noise_ms"),
    }
