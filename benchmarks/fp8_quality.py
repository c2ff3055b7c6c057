"""Claim: fp8 engines of the embedded model make pictures as right as eager fp16's, within 2 points.

    python benchmarks/fp8_quality.py [--folder FOLDER] [--out FILE] [--pictures FILE] [--device cpu --count 4 --steps 2]

The Inductor backend builds the model in fp16 and fp8, each in a separate process, as users do: with calibration and
component checks. Then eager diffusers in fp16 and every bundle generate the images of 200 prompts with the same seeds.
Recorded are the score by image analysis (`scripts/tiny_quality.py`), the PSNR of each image against eager's, the
quantized layers, and the error that each one causes in the U-Net's output.

FOLDER keeps the bundles: `h200_report.py --bundle FOLDER/fp8` analyzes one.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from parts import Parts

import sdtrt
from sdtrt import tiny_model
from sdtrt.bundle.bundle import Bundle
from sdtrt.cli.console import disable_library_progress
from sdtrt.config import Calibration
from sdtrt.errors import VerifyError
from sdtrt.quantization import layer_sensitivity
from sdtrt.system import env
from sdtrt.verification import image_metrics

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "scripts"))

BATCH = 8
PROFILE = f"B={BATCH}:{BATCH}:{BATCH},H=128,W=128"
# A limit of 1 keeps no layer and measures them all.
VARIANTS: dict[str, dict[str, Any]] = {
    "fp16": {"precision": "fp16"},
    "fp8": {"precision": "fp8", "calibration": {"max_error": 1.0}},
    "fp8 worst kept": {"precision": "fp8", "calibration": {"max_error": 0.005}},
}
MEASURES = ("color", "background", "shape", "all")


def build(variant: str, folder: Path, device: str, quick: bool) -> None:
    """Build one bundle in a separate process; records its time and the options that had to be dropped."""
    disable_library_progress()
    settings = dict(VARIANTS[variant])
    if "calibration" in settings:
        few = {"images": 1, "steps": 2} if quick else {}
        settings["calibration"] = Calibration(prompts=_calibration_prompts(), **settings["calibration"], **few)
    note: dict[str, Any] = {"errors": []}
    settings |= {"backend": "inductor", "profiles": [PROFILE], "profile_runs": 2 if quick else 10}
    settings |= {"components": ["text_encoder", "unet", "vae_decoder"]}
    options: dict[str, Any] = {"device": device, "rows": [2 * BATCH]}
    while "seconds" not in note and len(note["errors"]) < 3:
        started = time.perf_counter()
        try:
            sdtrt.build(tiny_model.MODEL, folder / variant.replace(" ", "-"), options=options, **settings)
            note |= {"seconds": time.perf_counter() - started, "options": options, "passes": settings.get("passes")}
            note["verified"] = "verify_steps" not in settings
        except Exception as exc:  # noqa: BLE001 (it is recorded, and the build retried with fewer options)
            note["errors"].append(f"{type(exc).__name__}: {exc}")
            if isinstance(exc, VerifyError) and "verify_steps" not in settings:
                settings["verify_steps"] = 0  # a picture too unlike is a result: the scores say what it means
            else:
                settings["passes"] = ("fp8",)
    (folder / f"{variant.replace(' ', '-')}.json").write_text(json.dumps(note), encoding="utf-8")


def _calibration_prompts() -> tuple[str, ...]:
    """Such prompts as the model knows, none of them among those that are scored."""
    import tiny_scenes

    scored = {prompt.text for prompt in tiny_scenes.evaluation_prompts()}
    return tuple(p for p in tiny_model.PROMPTS if p not in scored)


def start(folder: Path, variants: list[str], device: str, quick: bool) -> dict[str, subprocess.Popen[bytes]]:
    """All builds at once, with the machine's cores shared out."""
    share = str(max(1, (os.cpu_count() or 1) // len(variants)))
    threads = {"OMP_NUM_THREADS": share, "TORCHINDUCTOR_COMPILE_THREADS": share}
    command = [sys.executable, __file__, "--folder", str(folder), "--device", device, *["--quick"] * quick, "--build"]
    return {v: subprocess.Popen([*command, v], env={**os.environ, **threads}) for v in variants}


def eager_pipe(device: str) -> Any:
    """The stock pipeline in fp16."""
    import torch
    from diffusers import StableDiffusionPipeline

    bare = {"safety_checker": None, "requires_safety_checker": False}
    pipe = StableDiffusionPipeline.from_pretrained(tiny_model.MODEL, dtype=torch.float16, local_files_only=True, **bare)
    return pipe.to(device)


def pictures(pipe: Any, count: int, steps: int) -> Any:
    """(count, 128, 128, 3) in 0..1: picture n has the n-th prompt and the seed n."""
    import tiny_scenes
    import torch

    pipe.set_progress_bar_config(disable=True)
    prompts, made = tiny_scenes.evaluation_prompts(count), []
    for first in range(0, count, BATCH):
        some = [prompt.text for prompt in prompts[first : first + BATCH]]
        seeds = [torch.Generator().manual_seed(first + k) for k in range(len(some))]
        call = {"num_inference_steps": steps, "height": 128, "width": 128, "output_type": "np"}
        made.append(pipe(prompt=some, generator=seeds, **call).images)
    return np.concatenate(made)


def score(made: Any) -> dict[str, Any]:
    """Fractions of pictures that show what was asked for, and what was taken for what."""
    import tiny_quality
    import tiny_scenes

    found = tiny_quality.tally(tiny_scenes.evaluation_prompts(len(made)), [one.astype(np.float64) for one in made])
    return {**found, "wrong": found["wrong"][:10], "finite": bool(np.isfinite(made).all())}


def likeness(made: Any, eager: Any) -> dict[str, float]:
    """PSNR of every picture against eager's, in dB."""
    found = [image_metrics.psnr(a.astype(np.float64), b.astype(np.float64)) for a, b in zip(made, eager, strict=True)]
    low = statistics.quantiles(found, n=10, method="inclusive")[0] if len(found) > 1 else found[0]
    return {"median_db": statistics.median(found), "lowest_db": min(found), "lowest_tenth_db": low}


def rounded(bundle: Bundle) -> dict[str, Any]:
    """Which layers of the U-Net are rounded and which are not, with the error that each one causes."""
    from torch import nn

    from sdtrt import models

    component = bundle.manifest.components["unet"]
    engine = json.loads((bundle.path / "unet" / "engine.json").read_text(encoding="utf-8"))
    module = models.family_of(tiny_model.MODEL).components(tiny_model.MODEL, "fp32")["unet"].load(tiny_model.MODEL)
    kinds = {n.removeprefix("inner."): type(m).__name__ for n, m in module.named_modules() if _has_weight(m, nn)}
    found: dict[str, Any] = {"changes": engine["changes"], "parity": max(component.parity.values(), default=None)}
    found["layers"] = {kind: list(kinds.values()).count(kind) for kind in ("Linear", "Conv2d")}
    if (quantization := component.quantization) is None:
        return found
    # The engine does not store the half-precision weight of a layer that it quantizes.
    half = {name.removesuffix(".weight") for parts in engine["sources"].values() for name, _ in parts}
    done = [name for name in quantization.layers if name not in half]
    errors = quantization.errors
    return found | {
        "calibrated": len(quantization.layers),
        "rounded": {kind: sum(kinds[n] == kind for n in done) for kind in ("Linear", "Conv2d")},
        "calibrated_but_not_rounded": sorted(set(quantization.layers) - set(done)),
        "error_of_all_calibrated": math.hypot(*(errors[n] for n in quantization.layers)) if errors else None,
        "error_of_rounded": math.hypot(*(errors[n] for n in done)) if errors else None,
        "kept_fp16": {name: errors[name] for name in quantization.kept},
        "errors": dict(sorted(errors.items(), key=lambda item: -item[1])),
    }


def _has_weight(module: Any, nn: Any) -> bool:
    return isinstance(module, nn.Linear | nn.Conv2d)


def ranks(device: str, images_made: int, steps: int) -> dict[str, Any]:
    """Errors of layers as one backward pass finds them, beside those of rounding one layer after the other."""
    import torch
    from scipy.stats import spearmanr

    from sdtrt.quantization import activation_ranges
    from sdtrt.quantization.calibration_images import CalibrationImages

    calibration = Calibration(prompts=_calibration_prompts(), images=images_made, steps=steps)
    images = CalibrationImages(calibration, tiny_model.MODEL, {"B": 1, "H": 128, "W": 128})
    pipe = images.pipeline(eager_pipe(device).unet)
    with activation_ranges.record_input_ranges(pipe.unet) as ranges, layer_sensitivity.record_calls(pipe.unet) as calls:
        images.make(pipe)
    some = layer_sensitivity.select_calls(calls)
    pipe.unet.requires_grad_(False)
    started = time.perf_counter()
    estimated = layer_sensitivity.measure(pipe.unet, ranges, some)
    at_once_s, started = time.perf_counter() - started, time.perf_counter()
    layers = dict(pipe.unet.named_modules())
    true: dict[str, float] = {}
    with torch.no_grad():
        exact = torch.cat([pipe.unet(*a, **k)[0].double() for a, k in some])
        for name, amax in ranges.items():

            def hook(layer: Any, inputs: Any, made: Any, amax: float = amax) -> Any:
                return made + layer_sensitivity.rounding_error(layer, inputs[0], made, amax)

            handle = layers[name].register_forward_hook(hook)
            wrong = torch.cat([pipe.unet(*a, **k)[0].double() for a, k in some])
            handle.remove()
            true[name] = float((wrong - exact).norm() / exact.norm())
    names = list(ranges)
    return {
        "layers": len(names),
        "rank_correlation": float(spearmanr([true[n] for n in names], [estimated[n] for n in names]).statistic),
        "at_once_s": at_once_s,
        "one_by_one_s": time.perf_counter() - started,
        "true_of_worst": {n: [true[n], estimated[n]] for n in sorted(names, key=lambda n: -true[n])[:12]},
    }


def sheet(peers: dict[str, Any], path: Path) -> str:
    """The first pictures of all peers, a row for each."""
    from PIL import Image

    rows = [np.concatenate(list(made[:12]), axis=1) for made in peers.values()]
    Image.fromarray((np.concatenate(rows) * 255).round().clip(0, 255).astype(np.uint8)).save(path)
    return ", ".join(peers)


def main() -> int:
    """Build, make pictures, compare; 1 when a part failed or a score is more than 2 points below eager's."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="keep the bundles here; a temporary folder by default")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "fp8_quality.json")
    parser.add_argument("--pictures", type=Path, help="write the first pictures of all peers here, as PNG")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--quick", action="store_true", help="calibrate with one short image: to try the script")
    parser.add_argument("--build", help=argparse.SUPPRESS)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        if args.build:
            build(args.build, folder, args.device, args.quick)
            return 0
        return compare(args, folder)


def compare(args: argparse.Namespace, folder: Path) -> int:
    """Build, generate, score and write the results."""
    disable_library_progress()
    parts = Parts(args.out, claim=(__doc__ or "").splitlines()[0], count=args.count, steps=args.steps)
    variants = list(VARIANTS)
    workers = start(folder, variants, args.device, args.quick)
    parts.run("machine", env.describe)
    peers: dict[str, Any] = {}
    made = parts.run("eager fp16", lambda: keep(peers, "eager fp16", lambda: eager_pipe(args.device), args))
    parts.run("ranks", lambda: ranks(args.device, 1 if args.quick else 4, 3 if args.quick else 20))
    for variant, worker in workers.items():
        worker.wait()
        parts.say(f"built {variant}")
        path = folder / variant.replace(" ", "-")
        parts.run(f"build {variant}", lambda path=path: json.loads(path.with_suffix(".json").read_text("utf-8")))
        parts.run(f"layers {variant}", lambda path=path: rounded(Bundle.open(path)))
        parts.run(variant, lambda v=variant, path=path: keep(peers, v, lambda: sdtrt.load(path), args, made))
    below = [parts.record[variant].get("points_below_eager") for variant in variants]
    worst = max((points for points in below if points is not None), default=None)
    parts.record["furthest_below_eager_points"] = worst
    if args.pictures and peers:
        parts.run("pictures", lambda: sheet(peers, args.pictures))
    for name in peers:
        parts.say(f"{name}: {json.dumps({k: v for k, v in parts.record[name].items() if k != 'score'})}")
    return max(parts.end(), int(worst is None or worst > 2))


def keep(peers: dict[str, Any], name: str, pipe: Any, args: argparse.Namespace, eager: Any = None) -> dict[str, Any]:
    """One peer's pictures into `peers`; their score, and how like eager's they are."""
    started = time.perf_counter()
    made = pictures(pipe(), args.count, args.steps)
    peers[name] = made
    found: dict[str, Any] = {"seconds": time.perf_counter() - started, "score": score(made)}
    if eager is not None:
        below = [100 * (eager["score"][m] - found["score"][m]) for m in MEASURES]
        found |= {"points_below_eager": max(below), "psnr": likeness(made, peers["eager fp16"])}
    return found


if __name__ == "__main__":
    sys.exit(main())
