"""A comparison as one self-contained HTML page, built as the report is."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sdtrt.analysis.comparison.compare import Comparison, Group, PlanDiff
from sdtrt.analysis.comparison.gate import Check
from sdtrt.analysis.comparison.text import arrow, describe, figures, largest_changes, totals_of, unpaired_engines
from sdtrt.analysis.report.template import template

if TYPE_CHECKING:
    import plotly.graph_objects as go

TOP_MODULES = 20
MAX_GROUPS = 2000
# Apart from each other for every kind of color vision.
FASTER, SLOWER = "#0072b2", "#d55e00"


def render_comparison(comparisons: Sequence[Comparison], checks: Sequence[Check] = ()) -> str:
    """The page: verdicts, totals, the modules that changed most, and a table of all groups of layers."""
    from plotly.offline import get_plotlyjs

    engines = [(c, e) for c in comparisons for e in c.engines]
    groups = [(c, e, g) for c, e in engines for g in e.groups]
    groups.sort(key=lambda entry: -abs(entry[2].delta_ms or 0))
    page = template("compare.html.jinja", figures=figures, arrow=arrow, describe=describe, plain=_plain)
    return page.render(
        comparisons=comparisons,
        checks=sorted(checks, key=lambda c: ("slower", "not compared", "ok").index(c.status)),
        engines=[(c, e, totals_of(e), largest_changes(e, TOP_MODULES)[0]) for c, e in engines],
        charts={f"modules-{i}": json.loads(_modules(e).to_json()) for i, (_, e) in enumerate(engines)},
        kinds=[e.kinds for _, e in engines],
        groups=[(c, e, _traits(g), g) for c, e, g in groups[:MAX_GROUPS]],
        total=len(groups),
        missing=[(c, side, names) for c in comparisons for side, names in unpaired_engines(c)],
        plotly_js=get_plotlyjs(),
    )


def _modules(engine: PlanDiff) -> go.Figure:
    """Bars to the right for modules that became slower, to the left for those that became faster."""
    import plotly.graph_objects as go

    from sdtrt.analysis.plot_support.layout import finish, label, name_bars

    rows = largest_changes(engine, TOP_MODULES)[1]
    figure = go.Figure()
    for name, color, sign in (("slower", SLOWER, 1), ("faster", FASTER, -1)):
        shown = [(place, row) for place, row in enumerate(rows) if (row.delta_ms or 0) * sign > 0]
        if shown:
            figure.add_bar(
                name=name,
                x=[row.delta_ms for _, row in shown],
                y=[place for place, _ in shown],
                marker={"color": color},
                customdata=[[label(row.name, 90), *figures(row)] for _, row in shown],
                hovertemplate="%{customdata[0]}<br>%{customdata[1]} → %{customdata[2]} ms<br>%{customdata[3]} ms "
                "%{customdata[4]}<extra></extra>",
                texttemplate="%{x:+.3g}",
                textposition="auto",
                cliponaxis=False,
            )
    name_bars(figure, [label(row.name, 48) for row in rows], "change of the time of one run, ms")
    ends = [0.0, *(row.delta_ms or 0 for row in rows)]
    room = 0.15 * (max(ends) - min(ends)) or 1  # for the figures beside the longest bars
    figure.update_layout(barmode="overlay", xaxis_zeroline=True, showlegend=True)
    figure.update_xaxes(range=[min(ends) - room, max(ends) + room])
    return finish(figure, 110 + 38 * len(rows), "" if rows else "No time changed.")


def _traits(group: Group) -> list[str]:
    """Words to filter by."""
    known = bool(group.before and group.after)
    said = (
        ("unmatched", not known),
        ("fused", known and len(group.before) > len(group.after)),
        ("split", known and len(group.before) < len(group.after)),
        ("precision", group.precision_changed),
        ("kernel", group.kernel_changed),
    )
    return [word for word, holds in said if holds]


def _plain(value: Any) -> str:
    """A number to sort by; empty when it is not known."""
    return "" if value is None else repr(float(value))
