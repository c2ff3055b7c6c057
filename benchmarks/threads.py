"""Claim: several threads are served faster by a pipeline without a lock than by one with a lock.

Four callers make two images of 12 steps and six of 4, with one thread in each engine call; once with a lock around
every call, once without, in turns. Prints images per second and the latency of the short calls, medians of the rounds
with their spread (median absolute deviation). Usage: python benchmarks/threads.py [--rounds 5] [--callers 4]
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from statistics import median
from threading import Lock
from typing import Any

import torch
from spreads import spread

import sdtrt
from sdtrt import tiny_model
from sdtrt.cli.commands.demo import PROFILE
from sdtrt.cli.console import disable_library_progress
from sdtrt.system import env

RESULTS = Path(__file__).parent / "results"
STEPS = (12, 4, 4, 4, 12, 4, 4, 4)
SHORT = min(STEPS)


def main() -> None:
    """Measure, print and write the results."""
    arguments = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--callers", type=int, default=4)
    options = arguments.parse_args()
    disable_library_progress()
    with tempfile.TemporaryDirectory() as name:
        bundle = sdtrt.build(tiny_model.copy(Path(name) / "model"), Path(name) / "bundle", profiles=[PROFILE])
        pipe = sdtrt.load(bundle, options={"threads": 1})
        pipe.set_progress_bar_config(disable=True)
        guards: dict[str, AbstractContextManager[Any]] = {"a lock around each call": Lock(), "no lock": nullcontext()}
        rounds: dict[str, list[tuple[float, float]]] = {name: [] for name in guards}
        for number in range(options.rounds + 1):
            for mode, guard in guards.items():
                rounds[mode].append(one_round(pipe, guard, options.callers, number))
    results = {}
    for mode, timings in rounds.items():
        images, short = map(spread, zip(*timings[1:], strict=True))  # the first round warms up
        results[mode] = {"images_per_s": images, "short_s": short}
        print(f"{mode.ljust(24)} {images['median']:.2f} images/s, short calls {short['median']:.2f} s")
    data = {"machine": env.describe(), "callers": options.callers, "steps": STEPS, "rounds": options.rounds}
    (RESULTS / "threads_cpu.json").write_text(json.dumps(data | {"found": results}, indent=1) + "\n", encoding="utf-8")


def one_round(pipe: Any, guard: AbstractContextManager[Any], callers: int, number: int) -> tuple[float, float]:
    """(images per second, median seconds of a short call from a caller's request to its image)."""

    def call(index: int) -> tuple[int, float]:
        noise, started = torch.Generator().manual_seed(100 * number + index), time.perf_counter()
        with guard:
            pipe(tiny_model.PROMPTS[index % len(tiny_model.PROMPTS)], num_inference_steps=STEPS[index], generator=noise)
        return STEPS[index], time.perf_counter() - started

    started = time.perf_counter()
    with ThreadPoolExecutor(callers) as pool:
        timings = list(pool.map(call, range(len(STEPS))))
    seconds = time.perf_counter() - started
    return len(timings) / seconds, median(s for steps, s in timings if steps == SHORT)


if __name__ == "__main__":
    main()
