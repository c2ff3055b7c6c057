"""Time and memory to export true-size models, and whether their FLOPs are counted correctly.

    python benchmarks/export_full_size.py sd21|sdxl [component ...]

Every component, with random weights, goes through export, TensorRT's graph passes and node costs, each in a process of
its own. FLOPs are compared with `torch.utils.flop_counter` on the module itself, which counts products (convolutions,
matrix products, attention) only. Results go to `results/export_full_size_<model>.json`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import configs
from sdtrt import engines, models
from sdtrt.costs import graph_costs
from sdtrt.export import onnx_export
from sdtrt.graph import optimize
from sdtrt.shapes.spec import ComponentSpec, ShapeProfile

PROFILES = {
    "sd21": "B=1:1:4,H=512:768:1024,W=512:768:1024",
    "sdxl": "B=1:1:4,H=768:1024:1280,W=768:1024:1280",
}
COUNTED_AT = {"sd21": (512, 768), "sdxl": (1024,)}
# Seconds of export, passes and costs, and resident GB, that the U-Nets are to stay within on two cores.
BUDGETS = {"sd21": (150, 6), "sdxl": (420, 10)}
TOLERANCE = 0.01
OPSET = 20
PRODUCTS = ("Conv", "ConvTranspose", "MatMul", "Gemm")
RESULTS = Path(__file__).parent / "results"
PACKAGES = ("torch", "diffusers", "transformers", "onnx", "onnxscript", "onnx-graphsurgeon", "polygraphy")


def measure(model: str, component: str, folder: Path) -> dict[str, Any]:
    """Take one component from its config to its costs; returns the time and memory of each stage."""
    family = models.family_of(folder)
    profile = ShapeProfile.parse(PROFILES[model]).with_defaults(family.default_profile(folder))
    spec = family.components(folder, "fp16")[component]
    config = family.configs(folder)[spec.attribute]
    stages: dict[str, dict[str, float]] = {}
    with _stage(stages, "make"):
        module = _on_meta(spec, config)
        counted = {size: _counted(module, spec, _sizes(profile, size)) for size in COUNTED_AT[model]}
        _fill(module)
    with _stage(stages, "export"):
        path = onnx_export.capture(spec, module, [profile], OPSET, folder / component)
    parameters = sum(p.numel() for p in module.parameters())
    with _stage(stages, "passes"):
        changes = optimize.optimize(path, engines.load("tensorrt").passes)
    flops = {}
    for size, expected in counted.items():
        with _stage(stages, f"costs at {size}"):
            costs = graph_costs(path, {t.name: t.resolve(_sizes(profile, size)) for t in spec.inputs}).nodes
        products = sum(c.flops for c in costs.values() if c.op in PRODUCTS)
        flops[size] = {
            "gflops": sum(c.flops for c in costs.values()) / 1e9,
            "products_gflops": products / 1e9,
            "flop_counter_gflops": expected / 1e9,
            "difference": products / expected - 1,
            "gbytes_moved": sum(c.bytes_moved for c in costs.values()) / 1e9,
        }
    return {
        "component": component,
        "parameters": parameters,
        "nodes": changes[-1].nodes_after,
        "nodes_exported": changes[0].nodes_before,
        "weight_gb": sum(c.weight_bytes for c in costs.values()) / 1e9,
        "stages": stages,
        "peak_gb": _peak_gb(),
        "flops": flops,
    }


def _sizes(profile: ShapeProfile, size: int) -> dict[str, int]:
    """One image; classifier-free guidance makes that a batch of two for the U-Net."""
    return profile.sizes("opt") | {"B": 1, "H": size, "W": size}


def _on_meta(spec: ComponentSpec, config: Mapping[str, Any]) -> nn.Module:
    torch.set_default_dtype(getattr(torch, spec.dtype))
    with torch.device("meta"):
        module = configs.module_of(spec, config)
    torch.set_default_dtype(torch.float32)
    return module.eval().requires_grad_(False)


def _counted(module: nn.Module, spec: ComponentSpec, sizes: Mapping[str, int]) -> int:
    """FLOPs that torch counts. On meta tensors attention is decomposed into matmuls and thus counted too."""
    inputs: dict[str, Tensor] = {
        t.name: torch.empty(t.resolve(sizes), dtype=getattr(torch, t.dtype), device="meta") for t in spec.inputs
    }
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        module(**inputs)
    return int(counter.get_total_flops())


def _fill(module: nn.Module) -> None:
    """Memory and random values for every weight, in place: no second copy in another type ever exists."""
    module.to_empty(device="cpu")
    torch.manual_seed(0)
    for weight in module.parameters():
        weight.uniform_(-0.03, 0.03)
    for name, buffer in module.named_buffers():
        if not name.endswith("position_ids"):
            raise RuntimeError(f"the buffer {name} has to be filled")
        buffer.copy_(torch.arange(buffer.shape[-1]))


@contextmanager
def _stage(stages: dict[str, dict[str, float]], name: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    stages[name] = {"seconds": time.perf_counter() - start, "peak_gb_so_far": _peak_gb()}


def _peak_gb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def _machine() -> dict[str, Any]:
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    info = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    name = next((line.partition(": ")[2] for line in info if line.startswith("model name")), platform.machine())
    return {"cpu": name, "cores": os.cpu_count(), "memory_gb": pages / 1e9, "python": platform.python_version()}


def _in_own_process(model: str, component: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="sdtrt-") as folder:
        answer = Path(folder) / "answer.json"
        subprocess.run([sys.executable, __file__, model, component, "--answer", str(answer)], check=True)
        result: dict[str, Any] = json.loads(answer.read_text(encoding="utf-8"))
        return result


def _line(result: Mapping[str, Any]) -> str:
    stages = result["stages"]
    seconds = [f"{stages[s]['seconds']:8.1f}" for s in ("make", "export", "passes")]
    costs = max(s["seconds"] for name, s in stages.items() if name.startswith("costs"))
    flops = "; ".join(
        f"{size} px: {f['gflops']:.1f} GFLOPs, products {f['difference']:+.3%}" for size, f in result["flops"].items()
    )
    sizes = f"{costs:8.1f} {result['peak_gb']:8.2f} {result['weight_gb']:8.2f} {result['nodes']:6d}"
    return f"{result['component']:16s} {' '.join(seconds)} {sizes}  {flops}"


def _verdict(model: str, unet: Mapping[str, Any]) -> str:
    seconds, gigabytes = BUDGETS[model]
    spent = sum(s["seconds"] for name, s in unet["stages"].items() if name != "make")
    kept = spent <= seconds and unet["peak_gb"] <= gigabytes
    return (
        f"unet: {spent:.0f} s of {seconds}, {unet['peak_gb']:.1f} GB of {gigabytes}: "
        f"{'within' if kept else 'OVER'} the budget"
    )


def main() -> int:
    """Measure the named components, by default all; returns 1 when FLOPs differ by more than the tolerance."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=PROFILES)
    parser.add_argument("components", nargs="*")
    parser.add_argument("--answer", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.answer:
        configs.write(args.model, args.answer.parent)
        result = measure(args.model, args.components[0], args.answer.parent)
        args.answer.write_text(json.dumps(result), encoding="utf-8")
        return 0
    texts = [name for name in configs.CHECKPOINTS[args.model] if name.startswith("text_encoder")]
    wanted = args.components or [*texts, "vae_decoder", "vae_encoder", "unet"]
    print(f"{'component':16s}   make s export s passes s  costs s  peak GB  weights  nodes  FLOPs")
    results = []
    for component in wanted:
        results.append(_in_own_process(args.model, component))
        print(_line(results[-1]), flush=True)
        if component == "unet":
            print(_verdict(args.model, results[-1]))
    if not args.components:
        record = {
            "model": args.model,
            "profile": PROFILES[args.model],
            "opset": OPSET,
            "machine": _machine(),
            "versions": {p: version(p) for p in PACKAGES},
            "components": results,
        }
        RESULTS.mkdir(exist_ok=True)
        path = RESULTS / f"export_full_size_{args.model}.json"
        path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        print(f"written to {path}")
    agree = all(abs(f["difference"]) <= TOLERANCE for r in results for f in r["flops"].values())
    return 0 if agree else 1


if __name__ == "__main__":
    sys.exit(main())
