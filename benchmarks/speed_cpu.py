"""Claim: on a CPU, the demo model's ONNX Runtime pipeline is not slower than eager diffusers on the same cores.

Both pipelines generate the same images in one process, alternating, so that other load affects both.
Prints medians with their spread (median absolute deviation), the ratio, and the U-Net's rate next to that of a
large matmul. Usage: python benchmarks/speed_cpu.py [--runs 15] [--steps 20]
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch
from spreads import spread

import sdtrt
from sdtrt import tiny_model
from sdtrt.cli.commands.demo import PROFILE
from sdtrt.cli.console import disable_library_progress
from sdtrt.pipelines import eager_pipeline
from sdtrt.system import env

RESULTS = Path(__file__).parent / "results"


def main() -> None:
    """Measure, print and write the results."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--runs", type=int, default=15)
    arguments.add_argument("--steps", type=int, default=20)
    options = arguments.parse_args()
    disable_library_progress()
    with tempfile.TemporaryDirectory() as name:
        model = tiny_model.copy(Path(name) / "model")
        bundle = sdtrt.build(model, Path(name) / "bundle", profiles=[PROFILE])
        pipes = {"eager": eager_pipeline.eager(model), "onnxruntime": sdtrt.load(bundle)}
        rows = {}
        for batch in (1, 4):
            seconds = measure(pipes, batch, options.steps, options.runs)
            rows[f"batch {batch}"] = {n: spread(s) for n, s in seconds.items()}
        plan = bundle.plan("unet")
    ceiling = gemm_gflops()
    unet = plan.total_flops / median(plan.wall_times_ms) / 1e6
    report(rows, options.steps, unet, ceiling)
    RESULTS.mkdir(exist_ok=True)
    data = {"machine": env.describe(), "steps": options.steps, "runs": options.runs, "seconds": rows}
    data |= {"unet_gflops": unet, "gemm_gflops": ceiling}
    (RESULTS / "speed_cpu.json").write_text(json.dumps(data, indent=1) + "\n")


def measure(pipes: dict[str, Any], batch: int, steps: int, runs: int) -> dict[str, list[float]]:
    """Seconds per call of each pipeline, alternating, after one warm-up each."""
    seconds: dict[str, list[float]] = {name: [] for name in pipes}
    for run in range(runs + 1):
        for name, pipe in pipes.items():
            pipe.set_progress_bar_config(disable=True)
            generator = torch.Generator().manual_seed(run)
            started = time.perf_counter()
            pipe([tiny_model.PROMPTS[0]] * batch, num_inference_steps=steps, generator=generator, output_type="np")
            if run:
                seconds[name].append(time.perf_counter() - started)
    return seconds


def gemm_gflops(size: int = 1024, runs: int = 10) -> float:
    """Rate of a large float32 matmul on this CPU, the best of some runs."""
    a, b = torch.randn(size, size), torch.randn(size, size)
    best = min(_timed(lambda: a @ b) for _ in range(runs))
    return 2 * size**3 / best / 1e9


def _timed(call: Any) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def report(rows: dict[str, Any], steps: int, unet: float, ceiling: float) -> None:
    """Print a table."""
    facts = env.describe()
    print(f"{facts['cpu']}, {facts['cores']} cores, {', '.join(f'{k} {v}' for k, v in facts['packages'].items())}")
    print(f"demo model, 128x128, {steps} steps, guidance on, float32")
    for name, row in rows.items():
        cells = "  ".join(f"{n} {r['median']:.3f} s ± {r['mad']:.3f}" for n, r in row.items())
        ratio = row["eager"]["median"] / row["onnxruntime"]["median"]
        print(f"{name}: {cells}  -> {ratio:.2f} times as fast")
    print(f"U-Net: {unet:.0f} GFLOP/s of {ceiling:.0f} that a 1024x1024x1024 matrix product reaches")


if __name__ == "__main__":
    main()
