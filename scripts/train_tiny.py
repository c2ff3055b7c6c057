"""Train a very small but complete Stable Diffusion pipeline on colored shapes, and write it in diffusers' layout.

First the autoencoder, then the text encoder and the U-Net together on a pool of latents that it encodes once.
A run that is stopped goes on from its checkpoint when the same command is given again. Everything drawn depends on
the seed and the step alone; on a CPU the result repeats to the bit, on a GPU up to the order of its sums.

What it costs, two operations for each multiplication with addition, backward twice forward:

* autoencoder: 5.0 GFLOP a picture forward, 15.1 trained. A batch of 48 is 0.73 TFLOP, 12 to 24 ms at 30 to 60
  TFLOP/s. 2 minutes are 5 to 10 thousand steps, 240 to 470 thousand pictures, 4 to 7 PFLOP. (Diffusers leaves
  channels_last in its upsampling from a batch of 64 on.)
* pool: 1.3 GFLOP a picture, 262144 pictures 0.35 PFLOP: 10 to 25 s with the drawing. Encoding again in every step
  would cost half as much again as the U-Net's training.
* U-Net and text encoder: 0.87 GFLOP a sample forward, 2.6 trained. A batch of 256 is 0.67 TFLOP, 11 to 22 ms. 8
  minutes are 22 to 44 thousand steps, 6 to 11 million samples, 15 to 29 PFLOP.

A step of either is some 1500 kernels, 15 to 30 ms of launches from Python: as a CUDA graph they cost next to nothing.
"""

import argparse
import dataclasses
import json
import time
from pathlib import Path

import tiny_draw
import tiny_model
import tiny_quality
import tiny_scenes
import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from tiny_loop import Batch, Plan, Trainer, console, generator_for
from transformers import CLIPTextModel

# Parts of the keys from which random numbers are drawn.
VAE_DATA, POOL_DATA, STATISTICS_DATA, UNET_DATA, SHOWN_DATA, POOL_PICK = range(6)
KL_WEIGHT = 1e-4
EDGE_WEIGHT = 1.0
# Share of a latent's spread that is added as noise before decoding: the U-Net's latents are never quite exact.
DECODER_NOISE = 0.12
EMPTY_CAPTION_SHARE = 0.1
MIN_SNR = 5.0
# A little shared noise for each channel: else the mean color shows through the strongest noise in training only.
OFFSET_NOISE = 0.05


def vae_batch(step: int, batch: int, seed: int, device: torch.device) -> Batch:
    """Draw pictures in -1 to 1 for the autoencoder, a third of them in colors outside the palette."""
    generator = generator_for(device, seed, VAE_DATA, step)
    scenes = tiny_scenes.sample(batch, generator, two_share=0.5)
    colors = tiny_scenes.palette_rgb(device)[torch.cat([scenes.background[:, None], scenes.color], 1)]  # [N, 3, 3]
    jitter = 0.01 * torch.randn(colors.shape, generator=generator, device=device)
    anything = torch.rand(colors.shape, generator=generator, device=device)
    odd = torch.rand((batch, 1, 1), generator=generator, device=device) < 1 / 3
    pictures = tiny_scenes.render(scenes, torch.where(odd, anything, (colors + jitter).clamp(0, 1)))
    shape = (batch, tiny_model.LATENT_CHANNELS, tiny_model.LATENT_SIDE, tiny_model.LATENT_SIDE)
    noise = torch.randn(shape, generator=generator, device=device)
    return {"pictures": (2 * pictures - 1).contiguous(memory_format=torch.channels_last), "noise": noise}


def vae_loss(vae: AutoencoderKL, inputs: Batch) -> torch.Tensor:
    """Sum the losses of a reconstruction: absolute, of the edges, and the divergence from the normal distribution."""
    pictures = inputs["pictures"]
    posterior = vae.encode(pictures).latent_dist
    mean, logvar = posterior.mean.float(), posterior.logvar.float()
    variance = logvar.exp() + (DECODER_NOISE * mean.detach().std()).square()
    error = vae.decode(mean + variance.sqrt() * inputs["noise"]).sample.float() - pictures  # [N, 3, 128, 128]
    edges = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
    divergence = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()
    loss: torch.Tensor = error.abs().mean() + error.square().mean() + EDGE_WEIGHT * edges + KL_WEIGHT * divergence
    return loss


@torch.no_grad()
def encode_pool(
    vae: AutoencoderKL, count: int, key: tuple[int, ...], device: torch.device
) -> tuple[torch.Tensor, tiny_scenes.Scenes]:
    """Draw scenes and encode them: unscaled means of the posterior [count, 4, 16, 16], and the scenes."""
    latents, parts = [], []
    for start in range(0, count, 512):
        generator = generator_for(device, *key, start)
        scenes = tiny_scenes.sample(min(512, count - start), generator)
        # float16 keeps three bits more of a latent than bfloat16.
        with torch.autocast(device.type, torch.float16, device.type == "cuda"):
            pictures = (2 * tiny_scenes.render(scenes) - 1).contiguous(memory_format=torch.channels_last)
            latents.append(vae.encode(pictures).latent_dist.mean.float())
        parts.append(scenes)
    names = [field.name for field in dataclasses.fields(tiny_scenes.Scenes)]
    return torch.cat(latents), tiny_scenes.Scenes(*(torch.cat([getattr(p, n) for p in parts]) for n in names))


def loss_weights(alphas: torch.Tensor) -> torch.Tensor:
    """Weigh the loss of predicting the noise by the signal-to-noise ratio.

    Less for little noise (min-SNR); more for much noise, where layout and background are decided and where a small
    error of the noise is a large one of the picture.
    """
    snr = alphas / (1 - alphas)
    return snr.clamp(max=MIN_SNR) / snr * snr.pow(-0.25).clamp(min=1.0)


class Denoising:
    """Makes the U-Net's batches from a pool of latents, and its loss.

    Args:
        latents: Scaled, [pool, 4, 16, 16].
        scenes: What they show.
        words: Tokens of `tiny_scenes.WORDS`.
        start: The start token.
    """

    def __init__(self, latents: torch.Tensor, scenes: tiny_scenes.Scenes, words: torch.Tensor, start: int) -> None:
        self.latents, self.scenes, self.words, self.start = latents, scenes, words.to(latents.device), start
        self.alphas = DDIMScheduler.from_config(tiny_model.build_scheduler().config).alphas_cumprod.to(latents.device)
        self.weights = loss_weights(self.alphas)

    def batch(self, step: int, batch: int, seed: int) -> Batch:
        """Draw noisy latents, their noise and the tokens of their captions."""
        device = self.latents.device
        generator = generator_for(device, seed, UNET_DATA, step)
        index = torch.randint(len(self.latents), (batch,), generator=generator, device=device)
        latents = self.latents[index]
        words = tiny_scenes.caption_words(self.scenes[index], generator)
        empty = torch.rand((batch, 1), generator=generator, device=device) < EMPTY_CAPTION_SHARE
        words = torch.where(empty, 0, words)
        noise = torch.randn(latents.shape, generator=generator, device=device)
        noise += OFFSET_NOISE * torch.randn((*latents.shape[:2], 1, 1), generator=generator, device=device)
        timestep = torch.randint(len(self.alphas), (batch,), generator=generator, device=device)
        alpha = self.alphas[timestep][:, None, None, None]
        return {
            "noisy": alpha.sqrt() * latents + (1 - alpha).sqrt() * noise,
            "noise": noise,
            "timestep": timestep,
            "weight": self.weights[timestep],
            "tokens": tiny_model.caption_tokens(words, self.words, self.start),
        }

    @staticmethod
    def loss(unet: UNet2DConditionModel, text_encoder: CLIPTextModel, inputs: Batch) -> torch.Tensor:
        """Weigh the squared error of the predicted noise."""
        text = text_encoder(inputs["tokens"]).last_hidden_state  # [N, 77, 128]
        noise: torch.Tensor = unet(inputs["noisy"], inputs["timestep"], encoder_hidden_states=text).sample.float()
        return ((noise - inputs["noise"]).square().mean((1, 2, 3)) * inputs["weight"]).mean()


def train_vae(options: argparse.Namespace, device: torch.device, deadline_s: float) -> AutoencoderKL | None:
    """Train the autoencoder and write it to `vae`; None where time ran out."""
    torch.manual_seed(options.seed)
    vae = tiny_model.build_vae().to(device, memory_format=torch.channels_last)
    with torch.no_grad():
        # At a spread of 1 the posterior's noise would drown the fresh latents for hundreds of steps.
        vae.quant_conv.bias[tiny_model.LATENT_CHANNELS :].fill_(-4.0)
    plan = Plan(options.steps_vae, options.minutes_vae, options.rate_vae, graphs=options.graphs)
    batch, seed = options.batch_vae, options.seed
    trainer = Trainer(
        "vae",
        {"vae": vae},
        lambda inputs: vae_loss(vae, inputs),
        lambda step: vae_batch(step, batch, seed, device),
        plan,
        options.state,
    )
    done = trainer.run(deadline_s)
    tiny_draw.curve(trainer.history, "autoencoder: loss", options.out / "vae_loss.png")
    if not done:
        return None
    trainer.use_averages()
    latents, _ = encode_pool(vae, options.statistics, (options.seed, STATISTICS_DATA), device)
    tiny_model.standardize_latents(vae, latents)
    vae.save_pretrained(options.out / "vae")
    pictures = vae_batch(0, 24, options.seed + 1, device)["pictures"].contiguous()
    with torch.no_grad():
        again = vae.decode(vae.encode(pictures).latent_dist.mean).sample
    error = float((again.clamp(-1, 1) - pictures).div(2).square().mean())
    console.print(f"vae: {-10 * torch.tensor(error).log10():.1f} dB, scaling factor {vae.config.scaling_factor}")
    both = torch.stack([pictures, again], 1).flatten(0, 1)
    tiny_draw.grid(both / 2 + 0.5, [], options.out / "vae.png")
    return vae


def train_unet(options: argparse.Namespace, vae: AutoencoderKL, device: torch.device, deadline_s: float) -> bool:
    """Train U-Net and text encoder and export the pipeline; whether training is finished."""
    torch.manual_seed(options.seed + 1)
    tokenizer = tiny_model.build_tokenizer()
    text_encoder, unet = tiny_model.build_text_encoder(tokenizer), tiny_model.build_unet()
    if options.start_from:
        text_encoder = CLIPTextModel.from_pretrained(options.start_from / "text_encoder", dtype=torch.float32)
        unet = UNet2DConditionModel.from_pretrained(options.start_from / "unet", dtype=torch.float32)
    text_encoder = text_encoder.to(device).train()
    unet = unet.to(device, memory_format=torch.channels_last).train()

    begun_s = time.monotonic()
    latents, scenes = encode_pool(vae, options.pool, (options.seed, POOL_DATA), device)
    latents *= vae.config.scaling_factor
    spread = f"mean {float(latents.mean()):+.3f}, spread {float(latents.std()):.3f}"
    console.print(f"pool: {len(latents)} scenes in {time.monotonic() - begun_s:.0f} s, {spread}")
    denoising = Denoising(latents, scenes, tiny_model.word_tokens(tokenizer), tokenizer.bos_token_id)
    plan = Plan(options.steps_unet, options.minutes_unet, options.rate_unet, 500, graphs=options.graphs)
    trainer = Trainer(
        "unet",
        {"unet": unet, "text_encoder": text_encoder},
        lambda inputs: denoising.loss(unet, text_encoder, inputs),
        lambda step: denoising.batch(step, options.batch_unet, options.seed),
        plan,
        options.state,
    )
    done = trainer.run(deadline_s)
    tiny_draw.curve(trainer.history, "U-Net and text encoder: weighted loss", options.out / "loss.png")
    # An unfinished stage is exported too: its averages are worth looking at, and a later run can start from them.
    trainer.use_averages()
    pipeline = tiny_model.build_pipeline(vae, text_encoder.eval(), tokenizer, unet.eval())
    size_bytes = tiny_model.export(pipeline, options.export)
    numbers = {"steps": trainer.step, "planned": trainer.total, "trained_s": round(trainer.trained_s)}
    numbers |= {"batch": options.batch_unet, "seed": options.seed, "weights_bytes": size_bytes}
    (options.out / "training.json").write_text(json.dumps(numbers | {"loss": trainer.history}), encoding="utf-8")
    (options.out / f"{options.export.name}.tar").write_bytes(options.export.with_suffix(".tar").read_bytes())
    console.print(f"unet: {size_bytes} bytes of weights in {options.export}")
    return done


def show(options: argparse.Namespace, device: torch.device) -> None:
    """Load the folder as anyone would, draw a grid of samples, and measure it."""
    pipeline = StableDiffusionPipeline.from_pretrained(options.export, local_files_only=True).to(device)
    pipeline.set_progress_bar_config(disable=True)
    prompts = [prompt.text for prompt in tiny_scenes.evaluation_prompts()[: options.shown * 2 // 3]]
    generator = generator_for(torch.device("cpu"), options.seed, SHOWN_DATA)
    pairs = tiny_scenes.sample(options.shown - len(prompts), generator, two_share=1.0)
    prompts += tiny_scenes.caption_text(tiny_scenes.caption_words(pairs, generator))
    pictures = pipeline(prompts, num_inference_steps=20, generator=generator, output_type="pt").images
    tiny_draw.grid(pictures.float(), prompts, options.out / "samples.png")
    if options.score:
        reports = [tiny_quality.score(pipeline, options.score, 20, batch=50, guidance_scale=g) for g in (3.0, 5.0, 7.5)]
        for report in reports:
            console.print({key: value for key, value in report.items() if key not in ("confusion", "wrong")})
        (options.out / "quality.json").write_text(json.dumps(reports, indent=1), encoding="utf-8")


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Read the command line; --smoke replaces sizes and steps by the smallest."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of the results, pictures and reports")
    parser.add_argument("--state", type=Path, help="folder of the checkpoints and the exported pipeline (out/state)")
    parser.add_argument("--stage", choices=("vae", "unet", "all"), default="all")
    parser.add_argument("--vae", type=Path, help="folder of a trained autoencoder to start the U-Net from (out/vae)")
    parser.add_argument("--start-from", type=Path, help="pipeline folder whose U-Net and text encoder to train on")
    parser.add_argument("--minutes-vae", type=float, default=2.0)
    parser.add_argument("--minutes-unet", type=float, default=8.0)
    parser.add_argument("--steps-vae", type=int, default=0, help="instead of the minutes")
    parser.add_argument("--steps-unet", type=int, default=0, help="instead of the minutes")
    parser.add_argument("--batch-vae", type=int, default=48)
    parser.add_argument("--batch-unet", type=int, default=256)
    parser.add_argument("--rate-vae", type=float, default=1e-3)
    parser.add_argument("--rate-unet", type=float, default=8e-4)
    parser.add_argument("--pool", type=int, default=262_144, help="scenes encoded for the U-Net")
    parser.add_argument("--statistics", type=int, default=8192, help="scenes to measure the scaling factor on")
    parser.add_argument("--stop-after-minutes", type=float, default=1e6, help="checkpoint and leave after this long")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--shown", type=int, default=48, help="samples in the grid")
    parser.add_argument("--score", type=int, default=200, help="prompts to measure the result on")
    parser.add_argument("--no-graphs", dest="graphs", action="store_false", help="no CUDA graphs")
    parser.add_argument("--smoke", action="store_true", help="the whole path with a few tiny steps")
    options = parser.parse_args(arguments)
    if options.smoke:
        small = {"steps_vae": 12, "steps_unet": 12, "batch_vae": 4, "batch_unet": 8, "pool": 64, "statistics": 32}
        vars(options).update(small | {"shown": 8, "score": 8})
    options.state = options.state or options.out / "state"
    options.vae = options.vae or options.out / "vae"
    options.export = options.state / "tiny-sd"
    return options


def main(arguments: list[str] | None = None) -> int:
    """Train what the command line asks for; 75 means unfinished: give the command again."""
    options = parse(arguments)
    begun_s = time.monotonic()
    options.out.mkdir(parents=True, exist_ok=True)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    deadline_s = begun_s + 60 * options.stop_after_minutes
    done = True
    if options.stage != "unet" and not (options.vae / "config.json").is_file():
        done = train_vae(options, device, deadline_s) is not None
    if done and options.stage != "vae":
        vae = AutoencoderKL.from_pretrained(options.vae, dtype=torch.float32).to(device)
        done = train_unet(options, vae.eval().to(memory_format=torch.channels_last), device, deadline_s)
        show(options, device)
    console.print(f"{'finished' if done else 'unfinished: give the command again'}, {time.monotonic() - begun_s:.0f} s")
    return 0 if done else 75


if __name__ == "__main__":
    raise SystemExit(main())
