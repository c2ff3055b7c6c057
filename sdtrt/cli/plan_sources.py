"""Inputs and outputs that `analyze` and `compare` share: options given as text, the choice of engines, report files."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sdtrt.errors import ConfigError

if TYPE_CHECKING:
    from sdtrt.analysis import Analysis
    from sdtrt.plan.layers import Plan

SCALAR = "scalar"
_SIZES = re.compile(r"[1-9]\d{0,9}(?:x[1-9]\d{0,9})*", re.ASCII)


def parse_shapes(text: str | None) -> dict[str, tuple[int, ...]] | None:
    """Parse "sample=2x4x64x64,timestep=scalar" to shapes by input name."""
    if text is None:
        return None
    shapes: dict[str, tuple[int, ...]] = {}
    for part in text.split(","):
        name, _, sizes = (piece.strip() for piece in part.rpartition("="))
        if not name or name in shapes or not (sizes == SCALAR or _SIZES.fullmatch(sizes)):
            raise ConfigError(
                "the sizes of an input cannot be read" if name not in shapes else "an input is named twice",
                slug="shapes-syntax",
                received=part,
                expected="NAME=SIZExSIZE..., or NAME=scalar, separated by commas, each input once",
                hint='write it like --shapes "sample=2x4x64x64,encoder_hidden_states=2x77x768,timestep=scalar"',
            )
        shapes[name] = () if sizes == SCALAR else tuple(map(int, sizes.split("x")))
    return shapes


def parse_onnx(values: Sequence[str] | None) -> Path | dict[str, Path] | None:
    """Parse one "unet.onnx" to its path, or several "unet=unet.onnx" to paths by engine."""
    if not values:
        return None
    paths = {name: Path(path) for name, _, path in (text.rpartition("=") for text in values)}
    if "" not in paths:
        return paths
    if len(values) > 1:
        raise ConfigError(
            "several ONNX files need the names of their engines",
            slug="onnx-syntax",
            received=", ".join(values),
            expected="--onnx FILE, or --onnx ENGINE=FILE for each engine",
        )
    return paths[""]


def select_components(analysis: Analysis, components: Sequence[str]) -> Analysis:
    """The analysis restricted to the named engines; unchanged when none is named."""
    from dataclasses import replace

    if not components:
        return analysis
    plans = {plan.component: plan for plan in analysis.plans}
    if unknown := [name for name in components if name not in plans]:
        raise ConfigError(
            f"there is no engine called {unknown[0]}",
            slug="unknown-name",
            received=unknown[0],
            expected=", ".join(plans),
        )
    return replace(analysis, plans=tuple(plans[name] for name in dict.fromkeys(components)))


def single_plan(analysis: Analysis, option: str) -> Plan:
    """The only engine of the analysis, for an option that draws or writes one; ConfigError for none or several."""
    if len(analysis.plans) != 1:
        raise ConfigError(
            f"{option} shows one engine",
            slug="one-engine",
            received=f"{len(analysis.plans)} engines",
            expected=" or ".join(f"--component {plan.component}" for plan in analysis.plans) or None,
        )
    return analysis.plans[0]


def check_suffixes(files: Iterable[tuple[str, Path]], supported: Collection[str]) -> None:
    """Raise ConfigError for a report of an unknown kind; called before anything slow is done."""
    for suffix, path in files:
        if suffix not in supported:
            raise ConfigError("no such kind of report", slug="report-kind", received=path, expected=" ".join(supported))


def make_parent_folders(paths: Iterable[Path | None]) -> None:
    """Create the folders that files will be written to; None is a file that is not written."""
    for path in paths:
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
