"""What each graph pass of the Inductor backend gains, alone: one call of a true-size U-Net with and without it.

    python benchmarks/h200_switches.py sd21|sdxl [--folder FOLDER] [--rows 2 16] [--at-once 8] [--only PASS ...]

Random weights, fp8, as `benchmarks/h200.py` builds them; what that left in FOLDER/MODEL is used. The U-Net is built
with the default passes, without each one, and in fp16, all in processes of their own, so many at
once. When nothing is being compiled any more, each is loaded beside the one with the defaults and the two take turns,
timed by CUDA events. A gain is what the pass saves: the time without it less the time with it.
"""

from __future__ import annotations

import argparse
import math
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import h200
import torch
from h200_pipes import DEVICE
from parts import Parts

import configs
from sdtrt.engines import Engine
from sdtrt.engines.backends.inductor import buckets
from sdtrt.engines.backends.inductor.optimize import DEFAULTS
from sdtrt.system import env

BASE, HALF = "ours fp8", "ours fp16"
TURNS, TURN_MS, LEAST_CALLS = 8, 120.0, 3
# No U-Net has heads for `vae_attention`; what `fp8` gains is measured against the fp16 engine.
PASSES = [name for name in DEFAULTS if name not in ("vae_attention", "fp8")]
# The same U-Net without one pass.
WITHOUT = {name: f"without {name}" for name in PASSES}
h200.ENGINE_VARIANTS |= dict.fromkeys(WITHOUT.values(), h200.ENGINE_VARIANTS[BASE])
h200.WITHOUT |= {variant: name for name, variant in WITHOUT.items()}
NAMES = [*WITHOUT, "fp8"]
Job = tuple[str, int]  # variant, rows


def main() -> int:
    """Build missing engines and time them; returns 1 when a part failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=h200.SIZES)
    parser.add_argument("--folder", type=Path, help="that of h200.py; a temporary folder by default")
    parser.add_argument("--out", type=Path, default=h200.RESULTS)
    parser.add_argument("--rows", type=int, nargs="+", default=[2, 16])
    parser.add_argument("--at-once", type=int, default=8, help="builds; each takes up to 11 GB of GPU memory")
    parser.add_argument("--only", nargs="+", choices=NAMES, default=NAMES)
    parser.add_argument("--build", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = (args.folder or Path(temporary)) / args.model
        if args.build:
            h200.build(args.model, "unet", args.build[0], (int(args.build[1]),), folder)
            return 0
        return run(args, folder)


def run(args: argparse.Namespace, folder: Path) -> int:
    """Build, time and print."""
    if not (folder / "model_index.json").exists():
        folder.mkdir(parents=True, exist_ok=True)
        configs.write(args.model, folder)
    parts = Parts(args.out / f"h200_switches_{args.model}.json", model=args.model, defaults=PASSES)
    parts.run("machine", env.describe)
    variants = {name: HALF if name == "fp8" else WITHOUT[name] for name in args.only}
    jobs = [(variant, rows) for rows in args.rows for variant in (BASE, *variants.values())]
    parts.run("builds", lambda: build_missing(args, folder, jobs, parts))
    for rows in args.rows:
        parts.run(f"all x{rows}", partial(time_variants, args.model, rows, folder, variants, parts))
    show(parts, [f"{name} x{rows}" for rows in args.rows for name in variants])
    return parts.end()


def build_missing(args: argparse.Namespace, folder: Path, jobs: list[Job], parts: Parts) -> dict[str, Any]:
    """Build missing engines in separate processes; returns their records, or the end of their error output."""

    def one(job: Job) -> tuple[str, Any]:
        variant, rows = job
        engine_folder, label = h200.engine_folder(folder, "unet", variant, (rows,)), f"{variant} x{rows}"
        if not engine_folder.exists():
            command = [
                sys.executable,
                __file__,
                args.model,
                "--folder",
                str(folder.parent),
                "--build",
                variant,
                str(rows),
            ]
            done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)
            if done.returncode:
                parts.say(f"{label} was not built: {done.stderr.strip()[-300:]}")
                return label, {"failed": done.stderr[-2000:]}
        facts = h200.facts(engine_folder)
        parts.say(f"{label} built in {facts['build_s']:.0f} s")
        return label, facts

    with ThreadPoolExecutor(args.at_once) as pool:
        return dict(pool.map(one, jobs))


def time_variants(model: str, rows: int, folder: Path, variants: dict[str, str], parts: Parts) -> int:
    """Time every variant at these rows; returns their number."""
    alternating = AlternatingRuns(model, rows, folder)
    parts.run(f"eager x{rows}", alternating.eager)
    parts.run(f"defaults x{rows}", alternating.base)
    if alternating.loaded:
        for name, variant in variants.items():
            parts.run(f"{name} x{rows}", partial(alternating.gain, name, variant))
    alternating.close()
    return len(variants)


class AlternatingRuns:
    """Runs at one batch size: the engine with the defaults stays loaded, the others are loaded one at a time."""

    def __init__(self, model: str, rows: int, folder: Path) -> None:
        specs, profile = h200.specs_of(model, folder)
        self.model, self.rows, self.folder, self.spec = model, rows, folder, specs["unet"]
        bucket = buckets.of(self.spec, (profile,), (rows,))[0]
        self.inputs = {n: t.to(DEVICE) for n, t in buckets.example(self.spec, bucket).items()}
        self.reference: torch.Tensor | None = None
        self.loaded: list[Engine] = []

    def eager(self) -> dict[str, Any]:
        """Run the fp16 module that all engines are compared with."""
        module = h200.make_module(self.spec, self.folder)
        with torch.no_grad():
            self.reference = module(**self.inputs)[0]
        return {"finite": bool(torch.isfinite(self.reference).all())}

    def base(self) -> dict[str, Any]:
        """Load the engine with the defaults and time it alone."""
        engine, load_s = self._load(BASE)
        self.loaded.append(engine)
        return {**self._facts(engine, load_s), "time_ms": h200.spread(self._alternate(engine)[0])}

    def gain(self, name: str, variant: str) -> dict[str, Any]:
        """Time one variant and the defaults, alternating; returns what the pass saves."""
        other, load_s = self._load(variant)
        try:
            on, off = map(h200.spread, self._alternate(self.loaded[0], other))
            results = self._facts(other, load_s)
        finally:
            other.close()
            if DEVICE == "cuda":
                torch.cuda.empty_cache()
        gain_ms = off["median"] - on["median"]
        return {
            **results,
            "on_ms": on,
            "off_ms": off,
            "gain_ms": gain_ms,
            "gain_spread_ms": math.hypot(on["spread"], off["spread"]),
            "gain_percent": 100 * gain_ms / off["median"],
        }

    def close(self) -> None:
        """Drop the engine."""
        for engine in self.loaded:
            engine.close()
        self.loaded.clear()
        self.reference = None

    def _load(self, variant: str) -> tuple[Engine, float]:
        return h200.load(self.model, "unet", variant, (self.rows,), self.folder)

    def _facts(self, engine: Engine, load_s: float) -> dict[str, Any]:
        with torch.no_grad():
            output = next(iter(engine(**self.inputs).values()))
        error = None if self.reference is None else h200.error(output, self.reference)
        return {"load_s": load_s, "error_to_module": error}

    def _alternate(self, *engines: Engine) -> list[list[float]]:
        """Milliseconds of a call, one figure per turn, of each engine: the mean of the calls of that turn."""
        for engine in engines:
            self._run_ms(engine, LEAST_CALLS)  # the first call captures
        calls = max(LEAST_CALLS, math.ceil(TURN_MS / self._run_ms(engines[0], LEAST_CALLS)))
        times: list[list[float]] = [[] for _ in engines]
        for _ in range(TURNS):
            for engine, engine_times in zip(engines, times, strict=True):
                engine_times.append(self._run_ms(engine, calls))
        return times

    def _run_ms(self, engine: Engine, calls: int) -> float:
        with torch.no_grad():
            if DEVICE == "cpu":
                started = time.perf_counter()
                for _ in range(calls):
                    engine(**self.inputs)
                return (time.perf_counter() - started) * 1e3 / calls
            start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            start.record()
            for _ in range(calls):
                engine(**self.inputs)
            end.record()
            torch.cuda.synchronize()
            return start.elapsed_time(end) / calls


def show(parts: Parts, names: list[str]) -> None:
    """Print a line for every gain."""
    for name in names:
        row = parts.record.get(name, {})
        if "gain_ms" in row:
            text = f"{row['gain_ms']:8.3f} ms ± {row['gain_spread_ms']:.3f}  {row['gain_percent']:5.1f} %"
            print(f"{name.ljust(24)} {text}  of {row['off_ms']['median']:.3f} ms, error {row['error_to_module']:.2g}")


if __name__ == "__main__":
    sys.exit(main())
