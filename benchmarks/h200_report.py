"""Claim: the report explains an engine on a GPU: its layers cover the time, by CUPTI, and name nodes and modules.

    python benchmarks/h200_report.py [--engine sdxl:fp8:2 ...] [--folder FOLDER] [--bundle DIR ...] --out DIR

`--engine` is a U-Net as `benchmarks/h200.py --folder FOLDER` builds it (model, precision, rows); a missing one
is built first. It is profiled by `Engine.profile`, as every build does, and DIR gets its plan.json. `--bundle` is any
bundle whose build has profiled it. `sdtrt analyze` then writes one HTML report of all engines and one per bundle.

Printed and kept in DIR/h200_report.json: which share of the time that CUDA events give for the whole engine the layers
cover, which share of all kernels' time, what could not be matched, and the most expensive layers and modules.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h200
from parts import Parts

import configs
from sdtrt.analysis import load, summarize
from sdtrt.analysis.module_paths import NO_MODULE, module_at
from sdtrt.engines import Engine
from sdtrt.engines.backends.inductor import buckets
from sdtrt.plan.layers import Plan
from sdtrt.system import env

ANALYZE = Path(__file__).parents[1] / "scripts" / "analyze.py"
TOP, DEPTH = 15, 3
SHOWN = ("name", "kind", "kernel", "module", "time_ms", "pct_time", "pct_peak_compute", "pct_peak_bandwidth", "bound")


def main() -> int:
    """Profile and report; returns 1 when a part failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", action="append", default=[], metavar="MODEL:PRECISION:ROWS")
    parser.add_argument("--folder", type=Path, default=Path("h200"), help="that of h200.py, with a folder per model")
    parser.add_argument("--bundle", action="append", default=[], type=Path)
    parser.add_argument("--out", type=Path, default=h200.RESULTS)
    parser.add_argument("--runs", type=int, default=10)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    parts = Parts(args.out / "h200_report.json", claim=(__doc__ or "").splitlines()[0])
    parts.run("machine", env.describe)
    plans = []
    for text in args.engine:
        path = args.out / f"{text.replace(':', '_')}.plan.json"
        if parts.run(
            f"profile {text}", lambda text=text, path=path: profile_engine(text, args.folder, path, args.runs)
        ):
            plans.append(path)
            parts.run(f"layers {text}", lambda path=path: explain(path))
    if plans:
        parts.run("report", lambda: write_report(plans, args.out / "h200_engines.html"))
    for bundle in args.bundle:
        page = args.out / f"{bundle.name}.html"
        parts.run(f"bundle {bundle.name}", lambda bundle=bundle: explain(bundle))
        parts.run(f"report {bundle.name}", lambda bundle=bundle, page=page: write_report([bundle], page))
    return parts.end()


def profile_engine(text: str, folder: Path, path: Path, runs: int) -> dict[str, Any]:
    """Profile one engine and write its layer plan; returns how its layers' times compare with the engine's."""
    model, precision, rows = text.split(":")
    variant, count = f"ours {precision}", int(rows)
    engine, load_s = open_engine(model, variant, count, folder / model)
    specs, profile = h200.specs_of(model, folder / model)
    bucket = buckets.of(specs["unet"], (profile,), (count,))[0]
    inputs = {n: t.to(engine.device) for n, t in buckets.example(specs["unet"], bucket).items()}
    results: dict[str, Any] = {"load_s": load_s, "engine_ms": call_ms(engine, inputs)}
    started = time.perf_counter()
    plan = engine.profile(inputs, dict(bucket.sizes), runs)
    results |= {"profile_s": time.perf_counter() - started, **coverage(plan, results["engine_ms"]["median"])}
    plan.model_copy(update={"component": f"{model} {precision}, {rows} rows"}).save(path)
    if engine.device.type == "cuda":
        all_ms = sum(us for _, _, us in h200.kernel_times(engine, inputs)) / 1e3
        results |= {"all_kernels_ms": all_ms, "share_of_all_kernels": results["layers_ms"] / all_ms}
    engine.close()
    print(text, results, flush=True)
    return results


def open_engine(model: str, variant: str, rows: int, folder: Path) -> tuple[Engine, float]:
    """The U-Net's engine, built if missing, and the seconds that loading takes."""
    if not (folder / "model_index.json").exists():
        folder.mkdir(parents=True, exist_ok=True)
        configs.write(model, folder)
    if not h200.engine_folder(folder, "unet", variant, (rows,)).exists():
        h200.build(model, "unet", variant, (rows,), folder)
    return h200.load(model, "unet", variant, (rows,), folder)


def call_ms(engine: Engine, inputs: dict[str, Any]) -> dict[str, float]:
    """Time of one call in ms: by CUDA events, on a CPU by the host clock."""
    if engine.device.type == "cuda":
        return h200.engine_ms(engine, inputs)
    times = []
    for _ in range(5):
        started = time.perf_counter()
        engine(**inputs)
        times.append((time.perf_counter() - started) * 1e3)
    return h200.spread(times)


def coverage(plan: Plan, engine_ms: float | None) -> dict[str, Any]:
    """Counts of layers, and shares of the time whose layers have a module, nodes, FLOPs or bytes."""
    timed = [layer for layer in plan.layers if layer.time_ms is not None]
    layers_ms = sum(layer.time_ms or 0.0 for layer in timed)

    def share(known: Sequence[Any]) -> float | None:
        return sum(layer.time_ms or 0.0 for layer in known) / layers_ms if layers_ms else None

    return {
        "launches": len(plan.layers),
        "without_time": len(plan.layers) - len(timed),
        "layers_ms": layers_ms,
        "wall_ms": statistics.median(plan.wall_times_ms) if plan.wall_times_ms else None,
        "share_of_engine": layers_ms / engine_ms if engine_ms else None,
        "share_with_module": share([layer for layer in timed if layer.module]),
        "share_with_nodes": share([layer for layer in timed if layer.nodes]),
        "share_with_flops_or_bytes": share([layer for layer in timed if layer.flops or layer.bytes_moved]),
        "notes": list(plan.notes),
    }


def explain(source: Path) -> dict[str, Any]:
    """The most expensive layers and modules of all engines at `source`."""
    analysis = load(source)
    results: dict[str, Any] = {}
    for plan in analysis.plans:
        frame = load_frame(analysis, plan.component)
        by_kind = frame.groupby("kind")["time_ms"].sum().sort_values(ascending=False)
        modules = frame["module"].fillna(NO_MODULE).map(lambda name: module_at(name, DEPTH))
        by_module = (
            frame.groupby(modules)[["time_ms", "flops", "headroom_ms"]].sum(min_count=1).nlargest(TOP, "time_ms")
        )
        top = frame.nlargest(TOP, "time_ms")[list(SHOWN)]
        wall = statistics.median(plan.wall_times_ms) if plan.wall_times_ms else None
        print(
            f"\n{plan.component} of {source}\n{top.to_string(max_colwidth=44)}\n\n{by_module.to_string()}\n", flush=True
        )
        results[plan.component] = {
            **coverage(plan, wall),
            "device": plan.device,
            "peaks_known": analysis.peaks_of(plan) is not None,
            "facts": summarize(plan).facts(),
            "by_kind_ms": by_kind.to_dict(),
            "top_layers": top.astype(object).where(top.notna(), None).to_dict("records"),
            "top_modules": by_module.reset_index().to_dict("records"),
        }
    findings = [{"component": f.component, "title": f.title, "ms": f.cost_per_image_ms} for f in analysis.findings]
    return {"engines": results, "findings": findings}


def load_frame(analysis: Any, component: str) -> Any:
    """The timed rows of one engine's layer table."""
    frame = analysis.frame
    return frame[frame["component"] == component].dropna(subset=["time_ms"])


def write_report(sources: list[Path], page: Path) -> dict[str, Any]:
    """Run `sdtrt analyze` as users do; returns its time, its output and the size of its page."""
    started = time.perf_counter()
    command = [sys.executable, str(ANALYZE), *map(str, sources), "--out", str(page)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    print(done.stdout, done.stderr[-2000:], sep="\n", flush=True)
    if done.returncode:
        raise RuntimeError(f"sdtrt analyze ended with {done.returncode}: {done.stderr[-500:]}")
    seconds = time.perf_counter() - started
    return {"seconds": seconds, "html_bytes": page.stat().st_size, "said": done.stdout.splitlines()}


if __name__ == "__main__":
    sys.exit(main())
