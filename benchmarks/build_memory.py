"""Resident memory of the build of a true-size model, stage by stage, with ONNX Runtime on the CPU.

    python benchmarks/build_memory.py sd21|sdxl [component ...] [--precision fp32] [--size 256] [--steps 1]

A checkpoint with random weights is written, and each component is built from it; with all of them, and `--steps`,
images are made and compared too. Weights are what counts: the size is small, so that comparing and profiling take no
hours. Results go to `results/build_memory_<model>_<precision>.json`.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

import configs
import sdtrt
from sdtrt import models, tiny_model
from sdtrt.system import env, process_memory

BOUND_GB = 20.0
RESULTS = Path(__file__).parent / "results"
CLASSES = {
    "scheduler": ("diffusers", "DDIMScheduler"),
    "text_encoder": ("transformers", "CLIPTextModel"),
    "text_encoder_2": ("transformers", "CLIPTextModelWithProjection"),
    "tokenizer": ("transformers", "CLIPTokenizer"),
    "tokenizer_2": ("transformers", "CLIPTokenizer"),
    "unet": ("diffusers", "UNet2DConditionModel"),
    "vae": ("diffusers", "AutoencoderKL"),
}


class Stages:
    """The peak of every stage, read when the next one is reported."""

    def __init__(self) -> None:
        self.peaks_gb: dict[str, float] = {}
        self._label, self._started = "start", time.perf_counter()

    def __call__(self, label: str, share: float) -> None:
        """Record the peak of the finished stage; the progress callback of the build."""
        if label == self._label:
            return
        peak_gb = (process_memory.peak_bytes() or 0) / 1e9
        print(f"{time.perf_counter() - self._started:7.1f} s  {peak_gb:6.2f} GB  {self._label}", flush=True)
        self.peaks_gb[self._label] = max(peak_gb, self.peaks_gb.get(self._label, 0.0))
        self._label = label
        process_memory.reset_peak()


def write_weights(folder: Path, components: list[str]) -> None:
    """Random half-precision weights, one component at a time; norms and biases keep their initial values."""
    family = models.family_of(folder)
    specs = family.components(folder, "fp16")
    for attribute in {specs[name].attribute for name in components}:
        spec = next(s for s in specs.values() if s.attribute == attribute)
        torch.set_default_dtype(torch.float16)
        module: Any = configs.module_of(spec, family.configs(folder)[attribute])
        torch.set_default_dtype(torch.float32)
        for weight in (p for p in module.parameters() if p.dim() > 1):
            weight.data.uniform_(-0.03, 0.03)
        module.inner.save_pretrained(folder / attribute)


def write_rest(folder: Path) -> None:
    """Write the scheduler and the tokenizers of the demo model, and the pipeline's index."""
    shutil.copytree(tiny_model.MODEL / "scheduler", folder / "scheduler")
    for name in ("tokenizer", "tokenizer_2")[: 2 if (folder / "text_encoder_2").exists() else 1]:
        shutil.copytree(tiny_model.MODEL / "tokenizer", folder / name)
    index = models.read_json(folder / "model_index.json")
    parts = {name: cls for name, cls in CLASSES.items() if (folder / name).exists()}
    (folder / "model_index.json").write_text(json.dumps({**index, **parts}), encoding="utf-8")


def main() -> int:
    """Build and measure; returns 1 when the peak is above the bound."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=configs.CHECKPOINTS)
    parser.add_argument("components", nargs="*", help="all by default")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--steps", type=int, default=0, help="steps of the images; none are made by default")
    args = parser.parse_args()
    stages = Stages()
    with tempfile.TemporaryDirectory(prefix="sdtrt-") as name:
        folder = Path(name) / "model"
        folder.mkdir()
        configs.write(args.model, folder)
        write_weights(folder, args.components or list(models.family_of(folder).components(folder, "fp16")))
        write_rest(folder)
        bundle = sdtrt.build(
            folder,
            Path(name) / "bundle",
            backend="onnxruntime",
            precision=args.precision,
            components=args.components or None,
            profiles=[f"B=1:1:2,H={args.size}:{args.size}:{2 * args.size},W={args.size}:{args.size}:{2 * args.size}"],
            profile_runs=1,
            verify_steps=args.steps,
            progress=stages,
        )
    peak_gb = max(stages.peaks_gb.values())
    record = {
        "model": args.model,
        "precision": args.precision,
        "weight_gb": {n: (c.weight_bytes or 0) / 1e9 for n, c in bundle.manifest.components.items()},
        "peak_gb": peak_gb,
        "stages_gb": stages.peaks_gb,
        "environment": env.describe(),
    }
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"build_memory_{args.model}_{args.precision}.json"
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    kept = peak_gb <= BOUND_GB
    print(f"peak {peak_gb:.1f} GB of {BOUND_GB:.0f}: {'within' if kept else 'OVER'} the bound; written to {path}")
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
