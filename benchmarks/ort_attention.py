"""Claim: with attention as one operator ONNX Runtime's U-Net of SD 2.1 needs less memory on a CPU, and no more time.

    python benchmarks/ort_attention.py [--runs 3] [--folder FOLDER]

The true-size U-Net, random float32 weights, is exported once and optimized with and without the pass `fuse_attention`.
The engines alternate on the two rows of one image, each time in a fresh process: one process would hold all weights
twice. Memory is the peak that the first call adds; a process that runs out of memory is killed. --folder keeps the
exported engines.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from export_full_size import _fill, _on_meta
from spreads import spread

import configs
from sdtrt import engines, models
from sdtrt.engines import EngineContext
from sdtrt.engines.backends.onnxruntime.engine import FUSION, WEIGHTS
from sdtrt.export import onnx_export
from sdtrt.graph import optimize
from sdtrt.shapes.sample_inputs import sample_inputs
from sdtrt.shapes.spec import ComponentSpec, ShapeProfile
from sdtrt.system import env, process_memory

RESULTS = Path(__file__).parent / "results"
SIZES = (512, 768)
FORMS = {"written out": False, "one operator": True}


def main() -> None:
    """Measure, print and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--form", choices=FORMS, help=argparse.SUPPRESS)
    parser.add_argument("--size", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.form:
        print(json.dumps(measure_one(arguments.folder, arguments.form, arguments.size)))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = arguments.folder or Path(name)
        prepare(folder)
        rows = measure(folder, arguments.runs)
    data = {"machine": env.describe(), "runs": arguments.runs, "rows": rows}
    (RESULTS / "ort_attention.json").write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(rows, indent=1))


def prepare(folder: Path) -> tuple[ComponentSpec, ShapeProfile, dict[str, Path]]:
    """Files of both engines, exported where they are missing."""
    if not (folder / "model").exists():
        (folder / "model").mkdir(parents=True)
        configs.write("sd21", folder / "model")
    family = models.family_of(folder / "model")
    profile = ShapeProfile.parse("B=1:1:4,H=512:512:1024,W=512:512:1024").with_defaults(
        family.default_profile(folder / "model")
    )
    spec = family.components(folder / "model", "fp32")["unet"]
    backend, paths = engines.load("onnxruntime"), {form: folder / form.replace(" ", "-") for form in FORMS}
    if not all((path / WEIGHTS).exists() for path in paths.values()):
        for left in (folder / "exported", folder / "work", *paths.values()):
            shutil.rmtree(left, ignore_errors=True)
        module: Any = _on_meta(spec, family.configs(folder / "model")["unet"])
        _fill(module)
        exported = onnx_export.capture(spec, module, [profile], backend.opset, folder / "exported")
        for form, fused in FORMS.items():
            work = shutil.copytree(exported.parent, folder / "work")
            changes = optimize.optimize(work / exported.name, [p for p in backend.passes if fused or p != FUSION])
            print(f"{form}: {changes[-1].nodes_after} nodes", file=sys.stderr)
            paths[form].mkdir()
            source = engines.Source(spec, module, (profile,), work / exported.name)
            backend.build(source, backend.check_options({}), paths[form])
            shutil.rmtree(work)
        shutil.rmtree(exported.parent)
    return spec, profile, paths


def measure(folder: Path, runs: int) -> dict[str, Any]:
    """Seconds and added memory of both forms at each size, and how far apart their results are."""
    results: dict[tuple[int, str], list[dict[str, float]]] = {(size, form): [] for size in SIZES for form in FORMS}
    killed = set()
    for _, (size, form) in product(range(runs), results):
        command = [sys.executable, __file__, "--folder", str(folder), "--form", form, "--size", str(size)]
        if (size, form) not in killed:
            done = subprocess.run(command, stdout=subprocess.PIPE, check=False)
            results[size, form] += [json.loads(done.stdout)] if done.returncode == 0 else []
            killed |= {(size, form)} if done.returncode else set()
            print(f"{size} {form}: {done.stdout.decode().strip() or done.returncode}", flush=True)
    rows: dict[str, Any] = {}
    for (size, form), measured in results.items():
        row: dict[str, Any] = (
            {what: spread([run[what] for run in measured]) for what in measured[0]} if measured else {}
        )
        rows[f"{size} {form}"] = row | {"killed": (size, form) in killed}
    for size in SIZES:
        if not killed & {(size, form) for form in FORMS}:
            plain, fused = (np.load(folder / f"{form}-{size}.npy") for form in FORMS)
            rows[f"{size} difference"] = float(np.linalg.norm(fused - plain) / np.linalg.norm(plain))
    return rows


def measure_one(folder: Path, form: str, size: int) -> dict[str, float]:
    """Memory that the first call adds, and seconds of the second; run in a separate process."""
    spec, profile, paths = prepare(folder)
    backend = engines.load("onnxruntime")
    engine = backend.load(paths[form], EngineContext(spec, (profile,), backend.check_options({})))
    inputs = sample_inputs(spec, profile.sizes("opt") | {"B": 1, "H": size, "W": size})
    process_memory.reset_peak()
    before = process_memory.peak_bytes() or 0
    (output,) = engine(**inputs).values()
    added_gb = ((process_memory.peak_bytes() or 0) - before) / 1e9
    started = time.perf_counter()
    engine(**inputs)
    seconds = time.perf_counter() - started
    np.save(folder / f"{form}-{size}.npy", output.numpy())
    return {"seconds": seconds, "added_gb": added_gb}


if __name__ == "__main__":
    main()
