"""The pipelines that `h200.py` compares: the same weights behind eager modules, compiled modules and engines."""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sdtrt.engines import Engine
from sdtrt.engines.backends.inductor import buckets
from sdtrt.pipelines import engine_modules as stand_ins
from sdtrt.shapes.spec import ComponentSpec, ShapeProfile

# Without a GPU the "tiny" model shows whether these programs run at all.
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
Pipe = tuple[Any, Mapping[str, Callable[[Tensor], Any]], int, int]


class PipeParts:
    """Modules of one model, from which each pipeline of the comparison is assembled."""

    def __init__(self, model: str, folder: Path, modules: Mapping[str, nn.Module], size: int, steps: int) -> None:
        self.xl = model == "sdxl"
        self.folder, self.modules, self.size, self.steps = folder, dict(modules), size, steps

    def eager(self) -> Pipe:
        """Stock modules in channels_last."""
        inner: dict[str, Any] = {n: m.inner for n, m in self.modules.items()}
        inner["unet"] = inner["unet"].to(memory_format=torch.channels_last)
        inner["vae_decoder"] = inner["vae_decoder"].to(memory_format=torch.channels_last)
        return self._pipe(inner, inner["unet"], inner["vae_decoder"])

    def compiled(self) -> Pipe:
        """As diffusers recommends."""
        inner: dict[str, Any] = {n: m.inner for n, m in self.modules.items()}
        unet, vae = copy.deepcopy(inner["unet"]), copy.deepcopy(inner["vae_decoder"])
        for part in (unet, vae):
            part.to(memory_format=torch.channels_last)
            part.fuse_qkv_projections()
        unet = torch.compile(unet, mode="reduce-overhead", fullgraph=True, dynamic=False)
        vae.decode = torch.compile(vae.decode, mode="reduce-overhead", fullgraph=True, dynamic=False)
        return self._pipe(inner, unet, vae)

    def accelerated(self, loaded: Mapping[Any, Engine], variant: str) -> Any:
        """A pipeline per batch, since each batch has its own U-Net engine."""

        def find(component: str, rows: int) -> Engine:
            mine = [e for (c, v, r), e in loaded.items() if c == component and rows in r and v == variant]
            return (mine or [e for (c, _, r), e in loaded.items() if c == component and rows in r])[0]

        def of(batch: int) -> Pipe:
            encoders = {
                n: stand_ins.EngineTextEncoder({n: find(n, batch)}, self.folder / n, self.folder / "none")
                for n in self.modules
                if n.startswith("text")
            }
            unet = stand_ins.EngineUNet({"unet": find("unet", 2 * batch)}, self.folder / "unet")
            vae = stand_ins.EngineVae({"vae_decoder": find("vae_decoder", 1)}, self.folder / "vae")
            return self._pipe(encoders, unet, vae)

        return of

    def _pipe(self, encoders: Mapping[str, Any], unet: Any, vae: Any) -> Pipe:
        from diffusers import EulerDiscreteScheduler, StableDiffusionPipeline, StableDiffusionXLPipeline

        scheduler = EulerDiscreteScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            steps_offset=1,
            timestep_spacing="leading",
        )
        names = [n for n in encoders if n.startswith("text")]
        shared = {
            "vae": vae,
            "unet": unet,
            "scheduler": scheduler,
            "tokenizer": None,
            **{n: encoders[n] for n in names},
        }
        if self.xl:
            pipe = StableDiffusionXLPipeline(**shared, tokenizer_2=None, add_watermarker=False)
        else:
            bare = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
            pipe = StableDiffusionPipeline(**shared, **bare)
        pipe.set_progress_bar_config(disable=True)
        return pipe, {n: encoders[n] for n in names}, self.size, self.steps


def images_of(pipe: Pipe | Callable[[int], Pipe]) -> Callable[..., Tensor]:
    """A call that makes a batch of images, from token ids to pixels (B, 3, H, W) in 0..1 on the GPU."""
    pipes: dict[int, Pipe] = {}

    def images(batch: int, seed: int = 0) -> Tensor:
        if batch not in pipes:
            pipes[batch] = pipe(batch) if callable(pipe) else pipe
        stock, encoders, size, steps = pipes[batch]
        random = torch.Generator("cuda").manual_seed(seed)
        with torch.no_grad():
            embeddings = _encode(encoders, batch)
            latents = torch.randn(batch, 4, size // 8, size // 8, generator=random, device="cuda").half()
            shape = {"height": size, "width": size, "num_inference_steps": steps}
            final = stock(**embeddings, **shape, latents=latents, guidance_scale=5.0, output_type="latent").images
            # Outside the pipeline, so that no pipeline casts a float32 VAE twice per image. One by one is as
            # fast as all at once, and takes an eighth of the memory, which each pipeline allocates.
            vae = stock.vae
            latent = final.to(vae.dtype) / vae.config.scaling_factor
            pixels = torch.cat([vae.decode(one, return_dict=False)[0].clone() for one in latent.split(1)])
            pixels = (pixels / 2 + 0.5).clamp(0, 1)
        torch.cuda.synchronize()
        return pixels

    return images


def _encode(encoders: Mapping[str, Callable[..., Any]], batch: int) -> dict[str, Tensor]:
    """Prompt and negative prompt, as the pipelines encode them."""
    embeddings = {}
    for which, first in (("prompt", 1), ("negative_prompt", 2)):
        ids = (torch.arange(77, device="cuda") * 7 + first) % 400 + 1
        states = [e(ids.repeat(batch, 1), output_hidden_states=True) for e in encoders.values()]
        if len(states) == 2:
            embeddings[f"{which}_embeds"] = torch.cat([s.hidden_states[-2] for s in states], dim=-1)
            embeddings[f"{'' if which == 'prompt' else 'negative_'}pooled_prompt_embeds"] = states[1][0]
        else:
            embeddings[f"{which}_embeds"] = states[0][0]
    return embeddings


def loop_ranges(module: nn.Module, spec: ComponentSpec, profile: ShapeProfile, steps: int) -> dict[str, float]:
    """Largest input magnitude of each linear layer over a denoising loop with guidance, from noise to latent."""
    from diffusers import EulerDiscreteScheduler

    from sdtrt.quantization.activation_ranges import record_input_ranges

    scheduler = EulerDiscreteScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    scheduler.set_timesteps(steps, device=DEVICE)
    bucket = buckets.of(spec, (profile,), (2,))[0]
    inputs = {n: t.to(DEVICE) for n, t in buckets.example(spec, bucket).items()}
    latents = inputs["sample"][:1].float() * scheduler.init_noise_sigma
    with torch.no_grad(), record_input_ranges(module) as ranges:
        for t in scheduler.timesteps:
            inputs["sample"] = scheduler.scale_model_input(latents, t).half().repeat(2, 1, 1, 1)
            inputs["timestep"] = t.float().repeat(2)
            without, with_prompt = module(**inputs)[0].float().chunk(2)
            latents = scheduler.step(without + 5.0 * (with_prompt - without), t, latents).prev_sample
    return dict(ranges)


def timed_runs(
    peers: Mapping[str, Callable[..., Tensor]], batches: Sequence[int], runs: int, report: Callable[[str], None]
) -> dict[str, Any]:
    """Seconds per batch of each pipeline, alternating, and its image's PSNR against eager's, in dB."""
    results: dict[str, Any] = {}
    for batch in batches:
        seconds: dict[str, list[float]] = {name: [] for name in peers}
        first: dict[str, Tensor] = {}
        for name, call in peers.items():
            first[name] = call(batch)
        for run in range(runs):
            for name, call in peers.items():
                started = time.perf_counter()
                call(batch, run)
                seconds[name].append(time.perf_counter() - started)
        for name, values in seconds.items():
            low, middle, high = statistics.quantiles(values, n=4)
            difference = (first[name].float() - first["eager"].float()).square().mean()
            results[f"{name}, batch {batch}"] = {
                "seconds": middle,
                "spread": (high - low) / 2,
                "images_per_s": batch / middle,
                "psnr_db": None if name == "eager" else float(-10 * torch.log10(difference)),
                "finite": bool(torch.isfinite(first[name]).all()),
                "speedup": statistics.median(seconds["eager"]) / middle,
            }
            report(f"{name}, batch {batch}: {results[f'{name}, batch {batch}']}")
    return results
