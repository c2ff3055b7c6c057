"""Claim: the pictures of the embedded model are right, and those of every engine as right as eager's, within 2 points.

200 prompts, one seed each, 20 steps, at the default guidance; color, background and shape are found in the pictures
by image analysis (`scripts/tiny_quality.py`). Usage: python benchmarks/quality_tiny.py [--count 200]
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import sdtrt
from sdtrt import engines, tiny_model
from sdtrt.cli.commands.demo import PROFILE
from sdtrt.cli.console import disable_library_progress
from sdtrt.pipelines import eager_pipeline
from sdtrt.system import env

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "scripts"))
import tiny_quality  # noqa: E402 (its folder is put on the path above)

MEASURES = ("color", "background", "shape", "all")


def main() -> None:
    """Measure eager diffusers and every engine that computes, print a table, and keep the figures."""
    arguments = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    arguments.add_argument("--count", type=int, default=200)
    options = arguments.parse_args()
    disable_library_progress()
    rows: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as name:
        pipes = {"diffusers": eager_pipeline.eager(tiny_model.MODEL)}
        for backend in map(engines.load, engines.names()):
            if backend.is_numeric and backend.unavailable() is None:
                out = Path(name) / backend.name
                pipes[backend.name] = sdtrt.load(
                    sdtrt.build(tiny_model.MODEL, out, backend=backend.name, profiles=[PROFILE], profile_runs=1)
                )
        for label, pipe in pipes.items():
            pipe.set_progress_bar_config(disable=True)
            rows[label] = tiny_quality.score(pipe, options.count, 20, batch=8)
            print(label.ljust(12), *(f"{m} {rows[label][m]:.1%}" for m in MEASURES), flush=True)
    worst = max(rows["diffusers"][m] - row[m] for row in rows.values() for m in MEASURES)
    print(f"furthest below diffusers: {100 * worst:.1f} points")
    scores = {label: {k: v for k, v in row.items() if k not in ("confusion", "wrong")} for label, row in rows.items()}
    path = ROOT / "benchmarks" / "results" / "quality_tiny.json"
    path.write_text(json.dumps({"machine": env.describe(), "scores": scores}, indent=1) + "\n")


if __name__ == "__main__":
    main()
