"""Plans from disk: a bundle folder, one component's folder, or one plan.json."""

from __future__ import annotations

import os
from pathlib import Path

from sdtrt.plan import Plan
from sdtrt.store import Bundle, Manifest


def load_plans(path: str | os.PathLike[str]) -> tuple[list[Plan], Manifest | None]:
    """Read the plans at `path`; the manifest is None for a plan outside a bundle.

    Raises BundleError when there is no readable bundle, and PlanError when a plan is missing or wrong.
    """
    path = Path(path)
    plan = path / "plan.json" if path.is_dir() else path
    if plan.is_file():
        return [Plan.load(plan)], None
    bundle = Bundle.open(path)
    return [bundle.plan(name) for name in bundle.manifest.components], bundle.manifest
