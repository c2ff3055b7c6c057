"""Images per second on one GPU: diffusers eager, diffusers with torch.compile, and the Inductor backend, in one run.

    python benchmarks/h200.py sdxl sd21 sd15 [--folder FOLDER] [--out FOLDER] [--runs 5]

True architectures with random weights, fp16, from token ids to decoded pixels, with guidance, Euler steps; batch 1 and
8. Each engine is built in a separate process, all in parallel, into FOLDER; another run reuses them. After all
compilations, the pipelines alternate in one process per model, one model after the other. Each engine is first
compared with its module in fp32 and fp16, and each image with eager's. Times are host times of whole images after
a synchronization; the peak rates are measured on the same card. torch.compile is used as diffusers recommends:
channels_last, fused QKV, mode="reduce-overhead", U-Net and VAE decoder.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import os
import pstats
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import gpu
import torch
from filelock import FileLock
from h200_pipes import DEVICE, PipeParts, images_of, loop_ranges, timed_runs
from torch import Tensor, nn

import configs
from sdtrt import engines, models
from sdtrt.bench.measure_peaks import measure_peaks
from sdtrt.engines import Engine, EngineContext, Source
from sdtrt.engines.backends.inductor import buckets
from sdtrt.shapes.spec import ComponentSpec, ShapeProfile

SIZES = {"sdxl": (1024, 20), "sd21": (512, 50), "sd15": (512, 50), "tiny": (64, 2)}
BATCHES = (1, 8)
# Options of an engine, and whether linear layers of the U-Net are quantized to FP8; names are keys of result files.
ENGINE_VARIANTS: dict[str, tuple[dict[str, Any], bool]] = {
    "ours fp16": ({}, False),
    "ours fp8": ({"bf16_vae": True}, True),
}
# Fresh processes that load an engine: with Inductor's compile workers, with one compile thread, and under cProfile.
WITHOUT: dict[str, str] = {}  # the graph pass that a variant leaves out
FRESH_MODES = ("default", "one compiler", "profiled")
Job = tuple[str, str, tuple[int, ...]]  # component, variant, rows
PACKAGES = ("torch", "triton", "diffusers", "transformers")
RESULTS = Path(__file__).parent / "results"


def specs_of(model: str, folder: Path) -> tuple[dict[str, ComponentSpec], ShapeProfile]:
    """Components in fp16, and the shape profile of the workload."""
    size = SIZES[model][0]
    family = models.family_of(folder)
    profile = ShapeProfile.parse(f"B=1:1:8,H={size},W={size}").with_defaults(family.default_profile(folder))
    specs = family.components(folder, "fp16")
    specs.pop("vae_encoder")
    return specs, profile


def make_module(spec: ComponentSpec, folder: Path) -> nn.Module:
    """The module with random weights, the same in every process."""
    torch.manual_seed(0)
    with torch.device(DEVICE):
        module = configs.module_of(spec, models.read_json(folder / spec.attribute / "config.json"))
    # Rounded to half precision where the pipeline computes in it, so that all peers have the same weights.
    return module.half().to(getattr(torch, spec.dtype)).eval().requires_grad_(False).to(DEVICE)


def jobs(specs: dict[str, ComponentSpec]) -> list[Job]:
    """(component, variant, rows) of every engine; the U-Net has an engine per batch size, built in parallel."""
    results: list[Job] = []
    for name, spec in specs.items():
        if name == "unet":
            results += [(name, v, (2 * b,)) for v in ENGINE_VARIANTS for b in BATCHES]
        elif name == "vae_decoder":
            results += [(name, v, (1,)) for v in ENGINE_VARIANTS if spec.dtype == "float32" or v == "ours fp16"]
        else:
            results.append((name, "ours fp16", BATCHES))
    return results


def engine_folder(folder: Path, component: str, variant: str, rows: tuple[int, ...]) -> Path:
    """Folder of an engine."""
    return folder / "engines" / f"{component}-{variant.replace(' ', '-')}-{'-'.join(map(str, rows))}"


def build(model: str, component: str, variant: str, rows: tuple[int, ...], folder: Path) -> None:
    """Build one engine in a separate process, and record its time and memory."""
    specs, profile = specs_of(model, folder)
    spec, (options, fp8) = specs[component], ENGINE_VARIANTS[variant]
    started = time.perf_counter()
    module = make_module(spec, folder)
    ranges = loop_ranges(module, spec, profile, SIZES[model][1]) if fp8 and component == "unet" else {}
    module_ready = time.perf_counter()
    target = engine_folder(folder, component, variant, rows)
    work = target.with_name(f".{target.name}")
    work.mkdir(parents=True, exist_ok=True)
    backend = engines.load("inductor")
    checked = backend.check_options({**options, "rows": rows, "device": DEVICE})
    passes = tuple(name for name in backend.passes if name != WITHOUT.get(variant))
    backend.build(Source(spec, module, (profile,), None, ranges=ranges, passes=passes), checked, work)
    facts: dict[str, Any] = {"build_s": time.perf_counter() - module_ready, "make_s": module_ready - started}
    facts |= {
        "peak_gpu_bytes": torch.cuda.max_memory_allocated(),
        "options": checked.model_dump(mode="json"),
        "passes": passes,
    }
    (work / "facts.json").write_text(json.dumps(facts), encoding="utf-8")
    work.rename(target)


def load(model: str, component: str, variant: str, rows: tuple[int, ...], folder: Path) -> tuple[Engine, float]:
    """Load an engine; also returns the seconds that this takes."""
    specs, profile = specs_of(model, folder)
    target = engine_folder(folder, component, variant, rows)
    options = json.loads((target / "facts.json").read_text(encoding="utf-8"))["options"]
    started = time.perf_counter()
    backend = engines.load("inductor")
    engine = backend.load(target, EngineContext(specs[component], (profile,), backend.check_options(options)))
    if DEVICE == "cuda":
        torch.cuda.synchronize()
    return engine, time.perf_counter() - started


def error(actual: Any, reference: Any) -> float:
    """Relative error of the first output; infinite when it is not finite."""
    a, b = actual.double(), reference.double()
    return float((a - b).norm() / b.norm()) if torch.isfinite(a).all() else float("inf")


def engine_ms(engine: Engine, inputs: dict[str, Tensor], runs: int = 20) -> dict[str, float]:
    """Time of one call by CUDA events."""
    return spread([gpu.event_ms(lambda: engine(**inputs)) for _ in range(runs + 3)][3:])


def kernel_times(engine: Engine, inputs: dict[str, Tensor]) -> list[tuple[str, int, float]]:
    """(name, launches, microseconds) of one call, most expensive first."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA]) as seen:
        engine(**inputs)
        torch.cuda.synchronize()
    results = [(k.key, k.count, k.device_time_total) for k in seen.key_averages() if k.device_time_total]
    return sorted(results, key=lambda k: -k[2])


def spread(times: list[float]) -> dict[str, float]:
    """Median, and half the interquartile range."""
    return dict(zip(("median", "spread"), gpu.middle_and_spread(times), strict=True))


def check(model: str, folder: Path, modules: dict[str, nn.Module], loaded: dict[Any, Engine]) -> dict[str, Any]:
    """Errors of every engine and of the fp16 module against fp32, and the engine's time."""
    specs, profile = specs_of(model, folder)
    results: dict[str, Any] = {}
    for (component, variant, rows), engine in loaded.items():
        for count in rows:
            bucket = buckets.of(specs[component], (profile,), (count,))[0]
            inputs = {n: t.cuda() for n, t in buckets.example(specs[component], bucket).items()}
            with torch.no_grad():
                half = modules[component](**inputs)[0]
                actual = next(iter(engine(**inputs).values()))
                row: dict[str, Any] = {"error_to_module": error(actual, half)}
                if count <= 2:
                    module = modules[component].float()
                    reference = module(**{n: t.float() if t.is_floating_point() else t for n, t in inputs.items()})[0]
                    modules[component] = module.to(getattr(torch, specs[component].dtype))
                    row |= {"error": error(actual, reference), "error_of_module": error(half, reference)}
                row["time_ms"] = engine_ms(engine, inputs)
                row["kernels"] = kernel_times(engine, inputs)
            results[f"{component} {variant} x{count}"] = row
            print(component, variant, count, json.dumps({**row, "kernels": len(row["kernels"])}), flush=True)
            torch.cuda.empty_cache()
    return results


def main() -> int:
    """Build missing engines, check and measure; returns 1 when an engine is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", choices=SIZES)
    parser.add_argument("--folder", type=Path, help="keep engines here; a temporary folder by default")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    parser.add_argument("--build", nargs="+", help=argparse.SUPPRESS)
    parser.add_argument("--first", choices=FRESH_MODES, help=argparse.SUPPRESS)
    parser.add_argument("--turns", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.build:
        component, variant, *rows = args.build
        build(args.models[0], component, variant, tuple(map(int, rows)), args.folder)
        return 0
    if args.first:
        print(json.dumps(first_call(args.models[0], args.folder, args.first == "profiled")))
        return 0
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.folder or Path(temporary)
        if args.turns is None:
            return all_models(args, folder)
        record = run(args.models[0], folder, args)
    (args.out / f"h200_{args.models[0]}.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return 0 if all(row["error_to_module"] < 0.1 for row in record["engines"].values()) else 1


def first_call(model: str, folder: Path, profiled: bool) -> dict[str, Any]:
    """Seconds to load a U-Net for one image in fp8, and of its first call; run in a fresh process.

    With `profiled`, also the slowest functions of loading: own seconds, total seconds, and calls.
    """
    specs, profile = specs_of(model, folder)
    inputs = buckets.example(specs["unet"], buckets.of(specs["unet"], (profile,), (2,))[0])
    device_inputs = {n: t.to(DEVICE) for n, t in inputs.items()}  # creates the CUDA context
    profiler = cProfile.Profile()
    with profiler if profiled else nullcontext():
        engine, loaded = load(model, "unet", "ours fp8", (2,), folder)
    began = time.perf_counter()
    next(iter(engine(**device_inputs).values())).cpu()
    results: dict[str, Any] = {"load_s": loaded, "first_call_s": time.perf_counter() - began}
    if profiled:
        rows = sorted(pstats.Stats(profiler).stats.items(), key=lambda row: -row[1][2])[:30]
        results["spent"] = {
            f"{Path(f).name}:{line} {name}": (own_s, total_s, n) for (f, line, name), (_, n, own_s, total_s, _) in rows
        }
    return results


def all_models(args: argparse.Namespace, folder: Path) -> int:
    """Run one process per model; returns their highest exit code."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.ready"):
        old.unlink()
    shared = ["--out", str(args.out), "--runs", str(args.runs), "--turns", str(len(args.models))]
    shared += ["--no-compile"] * args.no_compile
    workers = [
        subprocess.Popen([sys.executable, __file__, model, "--folder", str(folder / model), *shared])
        for model in args.models
    ]
    return max([worker.wait() for worker in workers])


@contextmanager
def exclusive_turn(folder: Path, count: int) -> Iterator[None]:
    """Wait until all models are compiled, and hold a lock: one model is measured at a time."""
    folder.with_suffix(".ready").touch()
    while len(list(folder.parent.glob("*.ready"))) < count:
        time.sleep(0.2)
    with FileLock(folder.parent / "turn.lock"):
        yield


def run(model: str, folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Build and measure one model; returns its record."""
    started = time.perf_counter()

    def report(text: str) -> None:
        print(f"{time.perf_counter() - started:6.0f} s  {text}", flush=True)

    if not (folder / "model_index.json").exists():
        folder.mkdir(parents=True, exist_ok=True)
        configs.write(model, folder)
    specs, _ = specs_of(model, folder)
    requested = jobs(specs)
    command = [sys.executable, __file__, model, "--folder", str(folder), "--build"]
    workers = {
        job: subprocess.Popen([*command, job[0], job[1], *map(str, job[2])])
        for job in requested
        if not engine_folder(folder, *job).exists()
    }
    size, steps = SIZES[model]
    modules = {name: make_module(spec, folder) for name, spec in specs.items()}
    parts = PipeParts(model, folder, modules, size, steps)
    peers: dict[str, Callable[[int], Tensor]] = {"eager": images_of(parts.eager())}
    record: dict[str, Any] = {
        "model": model,
        "size": size,
        "steps": steps,
        "runs": args.runs,
        "machine": gpu.machine(PACKAGES),
        "compile_s": {},
    }
    if not args.no_compile:
        peers["torch.compile"] = images_of(parts.compiled())
        for batch in BATCHES:
            began = time.perf_counter()
            peers["torch.compile"](batch)
            record["compile_s"][batch] = time.perf_counter() - began
            report(f"torch.compile, batch {batch}")
    record["failed"] = [" ".join(map(str, job)) for job, worker in workers.items() if worker.wait() != 0]
    requested = [job for job in requested if engine_folder(folder, *job).exists()]
    report(f"all built, failed: {record['failed']}")
    with exclusive_turn(folder, args.turns):
        measure(model, folder, args.runs, requested, parts, peers, record, report)
    return record


def measure(
    model: str,
    folder: Path,
    runs: int,
    requested: list[Job],
    parts: PipeParts,
    peers: dict[str, Callable[..., Tensor]],
    record: dict[str, Any],
    report: Callable[[str], None],
) -> None:
    """Load and check all engines, then time the images; the results go into `record`."""
    loaded, record["load_s"] = {}, {}
    for job in requested:
        loaded[job], record["load_s"][" ".join(map(str, job[:2]))] = load(model, *job, folder)
    record["built"] = {engine_folder(folder, *job).name: facts(engine_folder(folder, *job)) for job in requested}
    record["engines"] = check(model, folder, parts.modules, loaded)
    report("checked")
    for variant in ENGINE_VARIANTS:
        if all(job in requested for job in jobs(specs_of(model, folder)[0]) if job[:2] == ("unet", variant)):
            peers[variant] = images_of(parts.accelerated(loaded, variant))
    record["images"] = timed_runs(peers, BATCHES, runs, report)
    record["fresh"] = {mode: measure_fresh(model, folder, mode) for mode in FRESH_MODES}
    record["ceilings"] = measure_peaks("cuda").model_dump(mode="json")
    record["memory_bytes"] = torch.cuda.max_memory_allocated()


def measure_fresh(model: str, folder: Path, mode: str) -> dict[str, Any]:
    """`first_call` in a separate process, and the time of that process."""
    environment = {"TORCHINDUCTOR_COMPILE_THREADS": "1"} if mode == "one compiler" else {}
    command = [sys.executable, __file__, model, "--folder", str(folder), "--first", mode]
    began = time.perf_counter()
    done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=True)
    return {**json.loads(done.stdout.splitlines()[-1]), "process_s": time.perf_counter() - began}


def facts(target: Path) -> dict[str, Any]:
    """Build time and memory of an engine, its passes, and the size of its code."""
    results: dict[str, Any] = json.loads((target / "facts.json").read_text(encoding="utf-8"))
    code = sum(f.stat().st_size for f in target.glob("*.inductor"))
    changes = json.loads((target / "engine.json").read_text(encoding="utf-8"))["changes"]
    return {**results, "code_bytes": code, "changes": changes}


if __name__ == "__main__":
    sys.exit(main())
