"""Time to switch LoRAs: the stock diffusers pipeline and engines of each backend that runs on this machine.

    python benchmarks/lora_switch.py [--runs 7] [--full-size [--engine FOLDER]]

On the embedded model: whole pipelines, a LoRA of U-Net and text encoder, rank 16. With --full-size: the U-Net of Stable
Diffusion 1.5 alone, random weights in float32, rank 16 on all attention layers; exporting it takes minutes, and FOLDER
keeps it for the next time.
`load` is load_lora_weights, `set` is set_adapters with another weight, `unload` is unload_lora_weights; each ends when
the next image can start. The pipelines alternate. diffusers does not merge weights when it switches, but multiplies
by the adapter at every step: `image` is one image of 20 steps (in full size, one U-Net call) with the LoRA.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline
from export_full_size import _fill, _on_meta
from peft import LoraConfig, get_peft_model_state_dict, inject_adapter_in_model
from spreads import spread

import configs
import sdtrt
from sdtrt import engines, models, tiny_model
from sdtrt.cli.commands.demo import PROFILE
from sdtrt.cli.console import disable_library_progress
from sdtrt.engines import EngineContext
from sdtrt.export import onnx_export
from sdtrt.graph import optimize
from sdtrt.lora import LoraSwitch
from sdtrt.pipelines import eager_pipeline
from sdtrt.shapes.sample_inputs import sample_inputs
from sdtrt.shapes.spec import ShapeProfile
from sdtrt.system import env

RESULTS = Path(__file__).parent / "results"
RANK = 16
TARGETS = {"unet": ["to_q", "to_k", "to_v", "to_out.0"], "text_encoder": ["q_proj", "k_proj", "v_proj", "out_proj"]}
FULL_PROFILE = "B=1,H=256:512:512,W=256:512:512"
Adapter = dict[str, torch.Tensor]


def main() -> None:
    """Measure, print and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--full-size", action="store_true")
    parser.add_argument("--engine", type=Path, help="folder that keeps the full-size engine")
    options = parser.parse_args()
    disable_library_progress()
    record: dict[str, Any] = {"machine": env.describe(), "runs": options.runs, "rank": RANK}
    with tempfile.TemporaryDirectory() as name:
        if options.full_size:
            record["sd15_unet"] = full_size(Path(name), options.engine or Path(name) / "engine", options.runs)
        record["demo_model"] = small(Path(name), options.runs)
    record["load_average"] = os.getloadavg()[1]  # above the number of cores, the machine had other work
    facts = record["machine"]
    print(f"{facts['cpu']}, {facts['cores']} cores, {', '.join(f'{k} {v}' for k, v in facts['packages'].items())}")
    print(f"load average {record['load_average']:.1f}")
    for title in ("demo_model", "sd15_unet"):
        show(title, record.get(title, {}))
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / "lora_switch.json"
    kept = json.loads(path.read_text(encoding="utf-8")) if path.exists() and not options.full_size else {}
    path.write_text(json.dumps({**kept, **record}, indent=1) + "\n", encoding="utf-8")


def small(folder: Path, runs: int) -> dict[str, Any]:
    """Whole pipelines of the embedded model."""
    model = tiny_model.copy(folder / "model")
    pipes = {"diffusers": eager_pipeline.eager(model)}
    for backend in ("onnxruntime", "eager"):
        bundle = sdtrt.build(model, folder / backend, backend=backend, profiles=[PROFILE])
        pipes[backend] = sdtrt.load(bundle)
    stock = pipes["diffusers"]
    adapter = adapter_of({part: getattr(stock, part) for part in TARGETS})
    call = {"num_inference_steps": 20, "output_type": "np", "height": 128, "width": 128}
    for pipe in pipes.values():
        pipe.set_progress_bar_config(disable=True)
    images = {
        name: lambda pipe=pipe: pipe(tiny_model.PROMPTS[0], generator=torch.Generator().manual_seed(0), **call)
        for name, pipe in pipes.items()
    }
    return measure(pipes, images, adapter, runs)


def full_size(folder: Path, kept: Path, runs: int) -> dict[str, Any]:
    """The U-Net of Stable Diffusion 1.5 alone, in a pipeline without other components."""
    configs.write("sd15", folder)
    family = models.family_of(folder)
    profile = ShapeProfile.parse(FULL_PROFILE).with_defaults(family.default_profile(folder))
    spec = family.components(folder, "fp32")["unet"]
    module: Any = _on_meta(spec, family.configs(folder)["unet"])
    _fill(module)
    adapter = adapter_of({"unet": module.inner})
    backend = engines.load("onnxruntime")
    if not kept.exists():
        onnx = onnx_export.capture(spec, module, [profile], backend.opset, folder / "exported")
        optimize.optimize(onnx, backend.passes)
        kept.mkdir(parents=True)
        backend.build(engines.Source(spec, module, (profile,), onnx), backend.check_options({}), kept)
    started = time.perf_counter()
    engine = backend.load(kept, EngineContext(spec, (profile,), backend.check_options({})))
    opened_ms = (time.perf_counter() - started) * 1e3

    absent = dict.fromkeys(("vae", "text_encoder", "tokenizer", "safety_checker", "feature_extractor"))
    stock = StableDiffusionPipeline(
        unet=module.inner, scheduler=DDIMScheduler(), requires_safety_checker=False, **absent
    )
    inputs = sample_inputs(spec, profile.sizes("min"))
    calls: dict[str, Callable[[], Any]] = {
        "diffusers": lambda: no_grad(module, inputs),
        "onnxruntime": lambda: engine(**inputs),
    }
    pipes = {"diffusers": stock, "onnxruntime": switchable(engine, folder)}
    return measure(pipes, calls, adapter, runs) | {"open_ms": opened_ms, "peak_gb": peak_gb()}


def switchable(engine: engines.Engine, folder: Path) -> Any:
    """A pipeline's LoRA methods for one engine."""
    switch = LoraSwitch({"unet": engine}, {}, folder, xl=False)
    methods = ("load_lora_weights", "set_adapters", "unload_lora_weights")
    return SimpleNamespace(lora_switch=switch, **{name: getattr(switch, name) for name in methods})


def no_grad(module: Any, inputs: Mapping[str, torch.Tensor]) -> Any:
    """Call without gradients."""
    with torch.no_grad():
        return module(**inputs)


def adapter_of(modules: Mapping[str, Any]) -> Adapter:
    """A LoRA with random weights, in the format of peft; the modules are not changed."""
    torch.manual_seed(0)
    state: Adapter = {}
    for part, module in modules.items():
        config = LoraConfig(r=RANK, lora_alpha=RANK, target_modules=TARGETS[part], init_lora_weights=False)
        with torch.device("meta"):
            bare = type(module)(module.config) if part != "unet" else type(module).from_config(module.config)
        results = get_peft_model_state_dict(inject_adapter_in_model(config, bare))
        state |= {f"{part}.{name}": torch.randn(tensor.shape) * 0.02 for name, tensor in results.items()}
    return state


def measure(
    pipes: Mapping[str, Any], images: Mapping[str, Callable[[], Any]], adapter: Adapter, runs: int
) -> dict[str, Any]:
    """Milliseconds of each step of each pipeline, after one warm-up round."""
    times: dict[str, dict[str, list[float]]] = {name: {} for name in pipes}
    parts: dict[str, str] = {}
    for run in range(runs + 1):
        for name, pipe in pipes.items():
            steps = {
                "load": lambda pipe=pipe: pipe.load_lora_weights(dict(adapter), adapter_name="style"),
                "set": lambda pipe=pipe: pipe.set_adapters("style", 0.5),
                "image": images[name],
                "unload": lambda pipe=pipe: pipe.unload_lora_weights(),
            }
            for step, call in steps.items():
                started = time.perf_counter()
                call()
                if run:
                    times[name].setdefault(step, []).append((time.perf_counter() - started) * 1e3)
                if step == "set" and hasattr(pipe, "lora_switch"):
                    parts[name] = str(pipe.lora_switch.last)
    return {"ms": {name: {step: spread(v) for step, v in row.items()} for name, row in times.items()}, "parts": parts}


def peak_gb() -> float:
    """Peak resident memory of this process."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def show(title: str, results: Mapping[str, Any]) -> None:
    """Print a table."""
    if not results:
        return
    print(title.replace("_", " "))
    for name, row in results["ms"].items():
        cells = "  ".join(f"{step} {r['median']:.0f} ms ± {r['mad']:.0f}" for step, r in row.items())
        print(f"  {name}: {cells}")
    for name, line in results["parts"].items():
        print(f"  {name}: {line}")
    if "open_ms" in results:
        print(f"  first session open in {results['open_ms']:.0f} ms, peak memory {results['peak_gb']:.1f} GB")


if __name__ == "__main__":
    main()
