"""Bundles of sd1 whose engines of TensorRT's double take other weights, or are asked to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import shared_exports
from filelock import FileLock
from trt import bindings

from sdtrt.builder import build as builder
from sdtrt.bundle.bundle import Bundle

PARTS = ("unet", "text_encoder")  # the VAE stays the pipeline's own


def build(
    cache: Path, models: Mapping[str, Path], components: Sequence[str] = PARTS, precision: str = "fp32", **options: Any
) -> Bundle:
    """Build for the newest release, or take what an earlier test left."""
    tag = "-".join([precision, *options.values(), bindings.NEWEST, *components])
    with FileLock(cache / f"refit-{tag}.lock"), shared_exports.shared(cache / "exports"):
        return builder.build(
            models["sd1"],
            cache / "bundles" / f"refit-{tag}",
            backend="tensorrt",
            profiles=["B=1:1:2,H=64:64:128,W=64:64:128"],
            components=components,
            precision=precision,
            profile_runs=1,
            options=options,
        )
