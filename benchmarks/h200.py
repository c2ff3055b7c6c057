"""Images per second on one GPU: diffusers eager, diffusers with torch.compile, and our Inductor engines, in one run.

    python benchmarks/h200.py sdxl sd21 sd15 [--folder FOLDER] [--out FOLDER] [--runs 5]

True architectures with random weights, fp16, from token ids to decoded pixels, with guidance, Euler steps; batch 1 and
8. All engines are built in processes of their own at once, into FOLDER, where another run finds them. When nothing is
being compiled any more, the peers take turns in one process per model, one model after the other. Each engine is
compared with its module in fp32 and fp16 first, and each image with eager's. Times are host times of whole images after
a synchronization; the ceilings are measured on the same card. torch.compile is used as diffusers recommends:
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
# What an engine is built as: its options, and whether linear layers of the U-Net are rounded to FP8.
OURS: dict[str, tuple[dict[str, Any], bool]] = {
    "ours fp16": ({}, False),
    "ours fp8": ({"bf16_vae": True}, True),
}
WITHOUT: dict[str, str] = {}  # the graph pass that a variant leaves out
# Fresh processes that load an engine: with as many compilers as Inductor starts, with none beside it, and looked into.
FRESH = ("default", "one compiler", "profiled")
Job = tuple[str, str, tuple[int, ...]]  # component, variant, rows
PACKAGES = ("torch", "triton", "diffusers", "transformers")
RESULTS = Path(__file__).parent / "results"


def specs_of(model: str, folder: Path) -> tuple[dict[str, ComponentSpec], ShapeProfile]:
    """Components in fp16, and sizes of the workload."""
    size = SIZES[model][0]
    family = models.family_of(folder)
    profile = ShapeProfile.parse(f"B=1:1:8,H={size},W={size}").with_defaults(family.default_profile(folder))
    specs = family.components(folder, "fp16")
    specs.pop("vae_encoder")
    return specs, profile


def make(spec: ComponentSpec, folder: Path) -> nn.Module:
    """The module with random weights, the same in every process."""
    torch.manual_seed(0)
    with torch.device(DEVICE):
        module = configs.module_of(spec, models.read_json(folder / spec.attribute / "config.json"))
    # Rounded to half precision where the pipeline computes in it, so that all peers have the same weights.
    return module.half().to(getattr(torch, spec.dtype)).eval().requires_grad_(False).to(DEVICE)


def jobs(specs: dict[str, ComponentSpec]) -> list[Job]:
    """(component, variant, rows) of every engine; the U-Net's rows are apart so that they are built at once."""
    found: list[Job] = []
    for name, spec in specs.items():
        if name == "unet":
            found += [(name, v, (2 * b,)) for v in OURS for b in BATCHES]
        elif name == "vae_decoder":
            found += [(name, v, (1,)) for v in OURS if spec.dtype == "float32" or v == "ours fp16"]
        else:
            found.append((name, "ours fp16", BATCHES))
    return found


def place(folder: Path, component: str, variant: str, rows: tuple[int, ...]) -> Path:
    """Where an engine lies."""
    return folder / "engines" / f"{component}-{variant.replace(' ', '-')}-{'-'.join(map(str, rows))}"


def build(model: str, component: str, variant: str, rows: tuple[int, ...], folder: Path) -> None:
    """In a process of its own: one engine, with the seconds and the memory it took."""
    specs, profile = specs_of(model, folder)
    spec, (options, fp8) = specs[component], OURS[variant]
    started = time.perf_counter()
    module = make(spec, folder)
    ranges = loop_ranges(module, spec, profile, SIZES[model][1]) if fp8 and component == "unet" else {}
    made = time.perf_counter()
    target = place(folder, component, variant, rows)
    work = target.with_name(f".{target.name}")
    work.mkdir(parents=True, exist_ok=True)
    backend = engines.load("inductor")
    checked = backend.check_options({**options, "rows": rows, "device": DEVICE})
    passes = tuple(name for name in backend.passes if name != WITHOUT.get(variant))
    backend.build(Source(spec, module, (profile,), None, ranges=ranges, passes=passes), checked, work)
    facts: dict[str, Any] = {"build_s": time.perf_counter() - made, "make_s": made - started}
    facts |= {"peak_gpu_bytes": torch.cuda.max_memory_allocated(), "options": checked, "passes": passes}
    (work / "facts.json").write_text(json.dumps(facts), encoding="utf-8")
    work.rename(target)


def load(model: str, component: str, variant: str, rows: tuple[int, ...], folder: Path) -> tuple[Engine, float]:
    """An engine and the seconds that loading took."""
    specs, profile = specs_of(model, folder)
    target = place(folder, component, variant, rows)
    options = json.loads((target / "facts.json").read_text(encoding="utf-8"))["options"]
    started = time.perf_counter()
    context = EngineContext(specs[component], (profile,), options)
    engine = engines.load("inductor").load(target, context)
    if DEVICE == "cuda":
        torch.cuda.synchronize()
    return engine, time.perf_counter() - started


def error(got: Any, truth: Any) -> float:
    """Relative error of the first output; infinite when it is not finite."""
    a, b = got.double(), truth.double()
    return float((a - b).norm() / b.norm()) if torch.isfinite(a).all() else float("inf")


def engine_ms(engine: Engine, inputs: dict[str, Tensor], runs: int = 20) -> dict[str, float]:
    """Time of one call by CUDA events."""
    return spread([gpu.event_ms(lambda: engine(**inputs)) for _ in range(runs + 3)][3:])


def kernels(engine: Engine, inputs: dict[str, Tensor]) -> list[tuple[str, int, float]]:
    """(name, launches, microseconds) of one call, dearest first."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA]) as seen:
        engine(**inputs)
        torch.cuda.synchronize()
    found = [(k.key, k.count, k.device_time_total) for k in seen.key_averages() if k.device_time_total]
    return sorted(found, key=lambda k: -k[2])


def spread(times: list[float]) -> dict[str, float]:
    """Median, and half the distance of the quartiles."""
    return dict(zip(("median", "spread"), gpu.middle_and_spread(times), strict=True))


def check(model: str, folder: Path, modules: dict[str, nn.Module], loaded: dict[Any, Engine]) -> dict[str, Any]:
    """Errors of every engine against fp32, beside those of the fp16 module; and the engine's own time."""
    specs, profile = specs_of(model, folder)
    found: dict[str, Any] = {}
    for (component, variant, rows), engine in loaded.items():
        for count in rows:
            bucket = buckets.of(specs[component], (profile,), (count,))[0]
            inputs = {n: t.cuda() for n, t in buckets.example(specs[component], bucket).items()}
            with torch.no_grad():
                half = modules[component](**inputs)[0]
                got = next(iter(engine(**inputs).values()))
                row: dict[str, Any] = {"error_to_module": error(got, half)}
                if count <= 2:
                    module = modules[component].float()
                    truth = module(**{n: t.float() if t.is_floating_point() else t for n, t in inputs.items()})[0]
                    modules[component] = module.to(getattr(torch, specs[component].dtype))
                    row |= {"error": error(got, truth), "error_of_module": error(half, truth)}
                row["time_ms"] = engine_ms(engine, inputs)
                row["kernels"] = kernels(engine, inputs)
            found[f"{component} {variant} x{count}"] = row
            print(component, variant, count, json.dumps({**row, "kernels": len(row["kernels"])}), flush=True)
            torch.cuda.empty_cache()
    return found


def main() -> int:
    """Build what is not there, check, then measure; 1 when an engine is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", choices=SIZES)
    parser.add_argument("--folder", type=Path, help="keep engines here; a temporary folder by default")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    parser.add_argument("--build", nargs="+", help=argparse.SUPPRESS)
    parser.add_argument("--first", choices=FRESH, help=argparse.SUPPRESS)
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
    """In a fresh process: seconds until a U-Net for one image in fp8 has been loaded, and of its first call.

    Profiled, also what the loading spent its time in: seconds, those of callees included, and calls of each function.
    """
    specs, profile = specs_of(model, folder)
    inputs = buckets.example(specs["unet"], buckets.of(specs["unet"], (profile,), (2,))[0])
    given = {n: t.to(DEVICE) for n, t in inputs.items()}  # a CUDA context
    profiler = cProfile.Profile()
    with profiler if profiled else nullcontext():
        engine, loaded = load(model, "unet", "ours fp8", (2,), folder)
    began = time.perf_counter()
    next(iter(engine(**given).values())).cpu()
    found: dict[str, Any] = {"load_s": loaded, "first_call_s": time.perf_counter() - began}
    if profiled:
        rows = sorted(pstats.Stats(profiler).stats.items(), key=lambda row: -row[1][2])[:30]
        found["spent"] = {
            f"{Path(f).name}:{line} {name}": (own, all_, n) for (f, line, name), (_, n, own, all_, _) in rows
        }
    return found


def all_models(args: argparse.Namespace, folder: Path) -> int:
    """One process per model; the worst of their results is the whole's."""
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
def turn(folder: Path, count: int) -> Iterator[None]:
    """Wait until all models are compiled, then measure alone."""
    folder.with_suffix(".ready").touch()
    while len(list(folder.parent.glob("*.ready"))) < count:
        time.sleep(0.2)
    with FileLock(folder.parent / "turn.lock"):
        yield


def run(model: str, folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    """The whole record of one model."""
    started = time.perf_counter()

    def report(text: str) -> None:
        print(f"{time.perf_counter() - started:6.0f} s  {text}", flush=True)

    if not (folder / "model_index.json").exists():
        folder.mkdir(parents=True, exist_ok=True)
        configs.write(model, folder)
    specs, _ = specs_of(model, folder)
    wanted = jobs(specs)
    command = [sys.executable, __file__, model, "--folder", str(folder), "--build"]
    workers = {
        job: subprocess.Popen([*command, job[0], job[1], *map(str, job[2])])
        for job in wanted
        if not place(folder, *job).exists()
    }
    size, steps = SIZES[model]
    modules = {name: make(spec, folder) for name, spec in specs.items()}
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
    wanted = [job for job in wanted if place(folder, *job).exists()]
    report(f"all built, failed: {record['failed']}")
    with turn(folder, args.turns):
        measure(model, folder, args.runs, wanted, parts, peers, record, report)
    return record


def measure(
    model: str,
    folder: Path,
    runs: int,
    wanted: list[Job],
    parts: PipeParts,
    peers: dict[str, Callable[..., Tensor]],
    record: dict[str, Any],
    report: Callable[[str], None],
) -> None:
    """Load and check all engines, then time the images; everything goes into `record`."""
    loaded, record["load_s"] = {}, {}
    for job in wanted:
        loaded[job], record["load_s"][" ".join(map(str, job[:2]))] = load(model, *job, folder)
    record["built"] = {place(folder, *job).name: facts(place(folder, *job)) for job in wanted}
    record["engines"] = check(model, folder, parts.modules, loaded)
    report("checked")
    for variant in OURS:
        if all(job in wanted for job in jobs(specs_of(model, folder)[0]) if job[:2] == ("unet", variant)):
            peers[variant] = images_of(parts.accelerated(loaded, variant))
    record["images"] = timed_runs(peers, BATCHES, runs, report)
    record["fresh"] = {how: fresh(model, folder, how) for how in FRESH}
    record["ceilings"] = measure_peaks("cuda").model_dump(mode="json")
    record["memory_bytes"] = torch.cuda.max_memory_allocated()


def fresh(model: str, folder: Path, how: str) -> dict[str, Any]:
    """`first_call` in a process of its own; and all of that process."""
    own = {"TORCHINDUCTOR_COMPILE_THREADS": "1"} if how == "one compiler" else {}
    command = [sys.executable, __file__, model, "--folder", str(folder), "--first", how]
    began = time.perf_counter()
    done = subprocess.run(command, env=os.environ | own, capture_output=True, text=True, check=True)
    return {**json.loads(done.stdout.splitlines()[-1]), "process_s": time.perf_counter() - began}


def facts(target: Path) -> dict[str, Any]:
    """What the build noted, and the size of its files."""
    found: dict[str, Any] = json.loads((target / "facts.json").read_text(encoding="utf-8"))
    code = sum(f.stat().st_size for f in target.glob("*.inductor"))
    changes = json.loads((target / "engine.json").read_text(encoding="utf-8"))["changes"]
    return {**found, "code_bytes": code, "changes": changes}


if __name__ == "__main__":
    sys.exit(main())
