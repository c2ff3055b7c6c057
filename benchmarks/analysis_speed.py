"""Claim: reading an engine's dump and making its table takes less than 10 ms, 3,000 layers less than a second.

Times each sample dump under --dumps (folders with *.graph.json), the dump of a small U-Net, and an engine of 3,000
layers, and the HTML report of each. Prints medians with their spread (median absolute deviation) and the page's size.
Usage: python benchmarks/analysis_speed.py [--dumps FOLDER] [--runs 25]
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from spreads import spread

from sdtrt.analysis.load import load
from sdtrt.analysis.report.html import render
from sdtrt.system import env

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results"

VERSIONS = ("numpy", "pandas", "pydantic", "plotly")


def main() -> None:
    """Measure, print and write the results."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--dumps", type=Path, help="folder with more dumps")
    arguments.add_argument("--runs", type=int, default=25)
    options = arguments.parse_args()
    facts = env.describe()
    print(
        f"{facts['cpu']}, {facts['cores']} cores, Python {sys.version.split()[0]}, {', '.join(map(_named, VERSIONS))}"
    )
    with tempfile.TemporaryDirectory() as name:
        rows = [measure(path, options.runs) for path in sources(options.dumps, Path(name))]
    RESULTS.mkdir(exist_ok=True)
    text = json.dumps({"machine": facts, "runs": options.runs, "rows": rows}, indent=1) + "\n"
    (RESULTS / "analysis_speed.json").write_text(text)


def sources(dumps: Path | None, scratch: Path) -> list[Path]:
    """Every dump below `dumps`, and two generated ones."""
    sys.path.insert(0, str(ROOT / "tests" / "helpers"))
    import trt_dump  # the tests' generator

    written = [trt_dump.write(scratch / "unet"), trt_dump.synthetic(scratch / "synthetic", 3000)]
    return [*(sorted(dumps.rglob("*.graph.json")) if dumps else []), *(dump.graph for dump in written)]


def measure(path: Path, runs: int) -> dict[str, Any]:
    """Times of reading, table and page, and the page's size."""
    analysis = load(path)
    layers = len(analysis.frame)
    row: dict[str, Any] = {"name": f"{path.parent.name}/{path.name.partition('.')[0]}", "layers": layers}
    row["load_and_frame_ms"] = timed(lambda: load(path).frame, runs)
    row["render_ms"] = timed(lambda: render(load(path)), 3)
    row["page_kb"] = len(render(analysis).encode()) / 1e3
    times = "   ".join(
        f"{key[:-3].replace('_', ' ')} {row[key]['median']:.1f} ms ± {row[key]['mad']:.1f}" for key in MEASURED
    )
    print(f"{row['name']}: {layers} layers   {times}   page {row['page_kb']:.0f} kB")
    return row


MEASURED = ("load_and_frame_ms", "render_ms")


def timed(call: Callable[[], object], runs: int) -> dict[str, float]:
    """Median and median absolute deviation of a call, in milliseconds, after a warm-up."""
    call()
    seconds = []
    for _ in range(runs):
        started = time.perf_counter()
        call()
        seconds.append(1e3 * (time.perf_counter() - started))
    return spread(seconds)


def _named(package: str) -> str:
    return f"{package} {env.version(package)}"


if __name__ == "__main__":
    main()
