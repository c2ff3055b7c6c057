"""Claim: a pipeline serves a thousand images from several threads with flat memory.

Calls of three sizes, one and two images, with and without guidance, alternate. Resident memory, live tensors, engines,
pipelines and open files are counted at intervals; a line fitted to each, without the warm-up, must be flat.
Usage: python benchmarks/soak.py [--images 1000] [--steps 4] [--callers 4]
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DiffusionPipeline

import sdtrt
from sdtrt import tiny_model
from sdtrt.cli.commands.demo import PROFILE
from sdtrt.cli.console import disable_library_progress
from sdtrt.engines import Engine
from sdtrt.system import env

RESULTS = Path(__file__).parent / "results"
# (images, height, width, guidance scale): twelve calls of eighteen images, over and over.
CALLS = [(batch, side, side, scale) for scale in (7.5, 1.0) for side in (64, 128, 96) for batch in (1, 2)]
# Allowed growth of the resident memory, as a share of it: the allocator always varies a little.
SHARE = 0.01
WARM_UP = 0.2
Sample = dict[str, int]


def main() -> None:
    """Build, soak, print and write the results."""
    arguments = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    arguments.add_argument("--images", type=int, default=1000)
    arguments.add_argument("--steps", type=int, default=4)
    arguments.add_argument("--callers", type=int, default=4)
    options = arguments.parse_args()
    disable_library_progress()
    with tempfile.TemporaryDirectory() as name:
        bundle = sdtrt.build(tiny_model.copy(Path(name) / "model"), Path(name) / "bundle", profiles=[PROFILE])
        pipe = sdtrt.load(bundle)
        started = time.perf_counter()
        samples = soak(pipe, options.images, max(options.images // 40, 1), options.callers, options.steps, show)
        seconds = time.perf_counter() - started
    results = verdict(samples)
    print(f"{samples[-1]['images']} images in {seconds:.0f} s; {json.dumps(results)}")
    data = {"machine": env.describe(), "steps": options.steps, "callers": options.callers, "seconds": seconds}
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "soak_cpu.json").write_text(json.dumps(data | results | {"samples": samples}, indent=1) + "\n")
    raise SystemExit(0 if results["flat"] else 1)


def soak(
    pipe: Any,
    images: int,
    every: int,
    callers: int,
    steps: int,
    report: Callable[[dict[str, int]], None] = lambda s: None,
) -> list[Sample]:
    """Generate images and count live objects about every `every` images, while no call runs.

    Args:
        pipe: Pipeline.
        images: Images in total.
        every: Images between counts.
        callers: Threads.
        steps: Denoising steps.
        report: Called with every sample.
    """
    pipe.set_progress_bar_config(disable=True)

    def call(number: int) -> int:
        batch, height, width, scale = CALLS[number % len(CALLS)]
        prompts = [tiny_model.PROMPTS[(number + i) % len(tiny_model.PROMPTS)] for i in range(batch)]
        noise, size = torch.Generator().manual_seed(number), {"height": height, "width": width}
        generated = pipe(prompts, num_inference_steps=steps, guidance_scale=scale, generator=noise, **size).images
        return len(generated)

    samples, done, number = [], 0, 0
    with ThreadPoolExecutor(callers) as pool:
        while done < images:
            upto, before = number, done
            while done - before < every:
                done += CALLS[number % len(CALLS)][0]
                number += 1
            if sum(pool.map(call, range(upto, number))) != done - before:
                raise SystemExit("a call returned a wrong number of images")
            samples.append({"images": done, **alive()})
            report(samples[-1])
    return samples


def alive() -> Sample:
    """Resident bytes, and counts of live objects and open files."""
    gc.collect()
    kinds = {"tensors": torch.Tensor, "engines": Engine, "pipelines": DiffusionPipeline}
    types = [type(thing) for thing in gc.get_objects()]
    counts = {name: sum(issubclass(t, kind) for t in types) for name, kind in kinds.items()}
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    files = sum(1 for _ in Path("/proc/self/fd").iterdir())
    return {"resident_bytes": pages * os.sysconf("SC_PAGE_SIZE"), **counts, "files": files}


def verdict(samples: list[Sample]) -> dict[str, Any]:
    """The growth of each count over the soak by a line through it, without the warm-up, and whether all are flat."""
    warm = [s for s in samples if s["images"] > WARM_UP * samples[-1]["images"]]
    images = np.array([s["images"] for s in warm], float)
    growth = {}
    for name in warm[0].keys() - {"images"}:
        slope = np.polyfit(images, np.array([s[name] for s in warm], float), 1)[0]
        growth[name] = round(float(slope * (images[-1] - images[0])), 2)
    limits = dict.fromkeys(growth, 1.0) | {"resident_bytes": SHARE * warm[-1]["resident_bytes"]}
    return {"growth": growth, "flat": all(growth[name] < limits[name] for name in growth)}


def show(sample: Sample) -> None:
    """One line."""
    others = ", ".join(f"{count} {name}" for name, count in sample.items() if name not in ("images", "resident_bytes"))
    print(f"{sample['images']:5} images: {sample['resident_bytes'] / 1e6:.1f} MB, {others}", flush=True)


if __name__ == "__main__":
    main()
