"""The HTML report: one file that opens from disk and asks nothing of any network."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

import pandas as pd
from jinja2 import Environment, StrictUndefined

from sdtrt import registry
from sdtrt.analysis._colors import KIND_COLORS
from sdtrt.analysis.frame import COLUMNS, to_frame
from sdtrt.analysis.summary import number, summarize
from sdtrt.plan import Plan
from sdtrt.store import Manifest

PLOTS = "sdtrt.analysis.plots"
TOP = 50


def render(plans: Sequence[Plan], manifest: Manifest | None = None) -> str:
    """The report on `plans` as one self-contained HTML page; a manifest adds the machine and the parity figures."""
    from plotly.offline import get_plotlyjs

    frame = to_frame(plans)
    parity = {name: component.parity for name, component in manifest.components.items()} if manifest else {}
    plots = {name: registry.load(PLOTS, name) for name in registry.names(PLOTS)}
    page = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    page.filters.update(number=number, say=_say, digest=_digest)
    return page.from_string(files("sdtrt.analysis").joinpath("report.html.jinja").read_text(encoding="utf-8")).render(
        plots=plots,
        figures={name: json.loads(plot.draw(frame, plans).to_json()) for name, plot in plots.items()},
        plotly_js=get_plotlyjs(),
        summaries=[summarize(plan) for plan in plans],
        manifest=manifest,
        parity={**parity, "whole image": manifest.image} if manifest else {},
        layers=frame.sort_values("time_ms", ascending=False, kind="stable").head(TOP).to_dict("records"),
        total=len(frame),
        meaning=COLUMNS,
        colors=KIND_COLORS,
        isna=pd.isna,
    )


def _say(value: Any) -> str:
    """JSON values, however nested, in a line of text."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_say(v)}" for name, v in value.items())
    if isinstance(value, list | tuple):
        return "; ".join(map(_say, value))
    return f"{value:,}" if isinstance(value, int | float) else str(value)


def _digest(script: str) -> str:
    """How the page's content security policy names a script that may run."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
