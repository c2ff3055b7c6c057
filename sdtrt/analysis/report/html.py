"""The HTML report: one file that opens from disk and asks nothing of any network.

Markup, style and behavior lie in `page/`. What a browser computes with is written into the page as JSON, and only the
scripts of this page may run: the security policy names each by its digest.
"""

import json
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from markupsafe import Markup

from sdtrt import registry
from sdtrt.analysis.colors import KIND_COLORS, STAGE_COLORS, precision_color
from sdtrt.analysis.findings import rules
from sdtrt.analysis.graph.data import graph_data
from sdtrt.analysis.image_budget import REST
from sdtrt.analysis.report.layer_data import elide, indices_of, layer_details, layer_table
from sdtrt.analysis.report.overview import coverage, devices, tiles
from sdtrt.analysis.report.template import asset, template
from sdtrt.analysis.session import Analysis
from sdtrt.analysis.summary import megabytes, number

PLOTS = "sdtrt.analysis.plots"
SECTIONS = ("Time", "Roofline", "Memory", "Precision")
STYLES = ("style.css", "parts.css", "graph.css")
# In the order in which they need each other.
PAGE = ("core.js", "charts.js", "table.js", "grid.js", "details.js", "budget.js")
GRAPH = ("graph_parts.js", "graph_layout.js", "graph_model.js", "graph_details.js", "graph_controls.js", "graph.js")
SCRIPTS = (*PAGE, *GRAPH, "page.js")


def render(analysis: Analysis) -> str:
    """The report as one self-contained HTML page."""
    from plotly.offline import get_plotlyjs

    plots = {name: registry.load(PLOTS, name) for name in registry.names(PLOTS)}
    engines = [Analysis((plan,), analysis.manifest, analysis.run, analysis.peaks) for plan in analysis.plans]
    figures = _figures(plots, analysis, engines)
    sections = [*SECTIONS, *sorted({plot.SECTION for plot in plots.values()} - {*SECTIONS})]
    page = template("page.html.jinja", number=number, megabytes=megabytes, say=_to_text, json=_json, elide=elide)
    return page.render(
        analysis=analysis,
        title=_title(analysis),
        tiles=tiles(analysis),
        devices=devices(analysis),
        engines=_engines(analysis, engines),
        selected=_slowest_engine(analysis),
        sections={section: _plots_of(plots, section, figures) for section in sections},
        figures=figures,
        findings=_findings(analysis),
        table=layer_table(analysis.frame, analysis.plans),
        details=layer_details(analysis.plans),
        graphs=[graph_data(engine) for engine in engines],
        kind_colors=KIND_COLORS,
        precision_colors={elide(name): precision_color(name) for name in analysis.frame["precision"].dropna().unique()},
        stage_colors=STAGE_COLORS,
        rest=REST,
        styles=[Markup(asset(name)) for name in STYLES],  # noqa: S704 (files of this package)
        scripts=[Markup(source) for source in (get_plotlyjs(), *map(asset, SCRIPTS))],  # noqa: S704 (the same)
    )


def _title(analysis: Analysis) -> str:
    if analysis.manifest:
        return elide(analysis.manifest.model)
    return elide(", ".join(plan.component for plan in analysis.plans)) or "no engines"


def _engines(analysis: Analysis, parts: list[Analysis]) -> list[dict[str, Any]]:
    """What the page says of each engine, with the number of its first layer."""
    found, first = [], 0
    for plan, part in zip(analysis.plans, parts, strict=True):
        about: dict[str, Any] = {"name": elide(plan.component, 80), "first": first, "count": len(plan.layers)}
        about |= {"plan": plan, "summary": part.summaries[0], "coverage": coverage(part.frame)}
        found.append(about)
        first += len(plan.layers)
    return found


def _slowest_engine(analysis: Analysis) -> int:
    """The engine that is shown first: that which takes most of the image."""
    total = {row.stage: row.total_ms or 0 for row in analysis.budget.rows}
    return max(range(len(analysis.plans)), key=lambda i: total.get(analysis.plans[i].component, 0), default=0)


def _plots_of(plots: Mapping[str, ModuleType], section: str, figures: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A section's plots in their order; `missing` says why a plot has nothing to show for any engine."""
    found = []
    for name, plot in sorted(plots.items(), key=lambda item: (item[1].ORDER, item[0])):
        if section == plot.SECTION:
            own = [figure for key, figure in figures.items() if key.rpartition("-")[0] == name]
            empty = [figure["layout"]["annotations"][0]["text"] for figure in own if not figure["data"]]
            about = {"name": name, "title": plot.TITLE, "caption": plot.CAPTION, "scope": _scope(plot)}
            missing = empty[0] if len(empty) == len(own) and own else ""
            found.append({**about, "wide": getattr(plot, "WIDE", False), "missing": missing})
    return found


def _scope(plot: ModuleType) -> str:
    return str(getattr(plot, "SCOPE", "engine"))


def _figures(plots: Mapping[str, ModuleType], whole: Analysis, engines: list[Analysis]) -> dict[str, Any]:
    """Figures by "plot-all", or "plot-0" for the first engine."""
    drawn = {}
    for name, plot in plots.items():
        parts = {"all": whole} if _scope(plot) == "all" else dict(enumerate(engines))
        drawn.update({f"{name}-{part}": json.loads(plot.draw(a).to_json()) for part, a in parts.items()})
    return drawn


def _findings(analysis: Analysis) -> list[dict[str, Any]]:
    """Findings with the numbers of their layers in the table and what the rule says of itself."""
    places, explanations = indices_of(analysis.frame), {rule.name: rule.explanation for rule in rules()}
    found = []
    for finding in analysis.findings:
        indices = [i for name in dict.fromkeys(finding.layers) for i in places.get((finding.component, name), ())]
        found.append({"finding": finding, "indices": indices, "rule": explanations.get(finding.rule)})
    return found


def _json(value: Any) -> Markup:
    """JSON that may stand in a script element: nothing in it can end the element or begin a comment."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))  # noqa: S704


def _to_text(value: Any) -> str:
    """JSON values, however nested, in a line of text."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_to_text(v)}" for name, v in value.items()) or "none"
    if isinstance(value, list | tuple):
        return "; ".join(map(_to_text, value)) or "none"
    if value is None:
        return "unknown"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int | float) else elide(value, 2000)
