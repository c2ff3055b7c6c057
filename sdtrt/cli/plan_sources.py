"""What `analyze` and `compare` share: sizes and ONNX files given as text, and the choice of engines."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sdtrt.errors import ConfigError

if TYPE_CHECKING:
    from sdtrt.analysis import Analysis
    from sdtrt.plan.layers import Plan

SCALAR = "scalar"
_SIZES = re.compile(r"[1-9]\d{0,9}(?:x[1-9]\d{0,9})*", re.ASCII)


def parse_shapes(text: str | None) -> dict[str, tuple[int, ...]] | None:
    """Read "sample=2x4x64x64,timestep=scalar" as sizes by input."""
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


def parse_onnx(given: Sequence[str] | None) -> Path | dict[str, Path] | None:
    """Read "unet.onnx", or several of "unet=unet.onnx", one for each engine."""
    if not given:
        return None
    named = {name: Path(path) for name, _, path in (text.rpartition("=") for text in given)}
    if "" not in named:
        return named
    if len(given) > 1:
        raise ConfigError(
            "several ONNX files need the names of their engines",
            slug="onnx-syntax",
            received=", ".join(given),
            expected="--onnx FILE, or --onnx ENGINE=FILE for each engine",
        )
    return named[""]


def only(analysis: Analysis, components: Sequence[str]) -> Analysis:
    """The analysis of the named engines; of all when none is named."""
    from dataclasses import replace

    if not components:
        return analysis
    known = {plan.component: plan for plan in analysis.plans}
    if unknown := [name for name in components if name not in known]:
        raise ConfigError(
            f"there is no engine called {unknown[0]}",
            slug="unknown-name",
            received=unknown[0],
            expected=", ".join(known),
        )
    return replace(analysis, plans=tuple(known[name] for name in dict.fromkeys(components)))


def single(analysis: Analysis, what: str) -> Plan:
    """The one engine of the analysis; ConfigError when there are several to choose from, or none."""
    if len(analysis.plans) != 1:
        raise ConfigError(
            f"{what} shows one engine",
            slug="one-engine",
            received=f"{len(analysis.plans)} engines",
            expected=" or ".join(f"--component {plan.component}" for plan in analysis.plans) or None,
        )
    return analysis.plans[0]
