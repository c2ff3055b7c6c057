"""The tiny pipeline's parts, all of stock classes: tokenizer, text encoder, U-Net, autoencoder, scheduler, folder."""

import collections
import io
import itertools
import json
import tarfile
from pathlib import Path
from typing import Any

import tiny_scenes
import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

START, END = "<|startoftext|>", "<|endoftext|>"
CONTEXT_TOKENS = 77
TEXT_WIDTH = 128
LATENT_CHANNELS = 4
LATENT_SIDE = tiny_scenes.IMAGE_PX // 8
# 16 MB less some room for the safetensors headers and the configurations.
LARGEST_BYTES = 15_900_000


def _byte_letters() -> list[str]:
    """The 256 printable letters that stand for bytes in byte-level BPE, in CLIP's order."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in shown]
    return [chr(byte) for byte in shown] + [chr(256 + k) for k in range(len(hidden))]


def _merges(words: list[str]) -> list[tuple[str, str]]:
    """Learn byte-pair merges, the most frequent pair first, until every word is a single token."""
    pieces = [[*word[:-1], word[-1] + "</w>"] for word in words]
    merges: list[tuple[str, str]] = []
    while True:
        pairs = collections.Counter(pair for piece in pieces for pair in itertools.pairwise(piece))
        if not pairs:
            return merges
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        for piece in pieces:
            for k in range(len(piece) - 2, -1, -1):
                if (*piece[k : k + 2],) == best:
                    piece[k : k + 2] = ["".join(best)]


def build_tokenizer() -> CLIPTokenizer:
    """Make CLIP's tokenizer with a vocabulary of its own: every byte, and every word of the captions as one token."""
    words = sorted(word for word in tiny_scenes.WORDS if word.isalpha())
    merges = _merges(words)
    letters = _byte_letters()
    tokens = [*letters, *(letter + "</w>" for letter in letters), *("".join(pair) for pair in merges), START, END]
    vocabulary = {token: k for k, token in enumerate(dict.fromkeys(tokens))}
    return CLIPTokenizer(vocab=vocabulary, merges=list(merges), model_max_length=CONTEXT_TOKENS)


def word_tokens(tokenizer: CLIPTokenizer) -> torch.Tensor:
    """Table from a word's index in `tiny_scenes.WORDS` to its token, the empty word to the end token: [words]."""
    table = [tokenizer.eos_token_id]
    for word in tiny_scenes.WORDS[1:]:
        tokens = tokenizer(word, add_special_tokens=False).input_ids
        if len(tokens) != 1:
            raise ValueError(f"{word!r} is {len(tokens)} tokens, not one")
        table += tokens
    return torch.tensor(table)


def caption_tokens(words: torch.Tensor, table: torch.Tensor, start: int) -> torch.Tensor:
    """Turn captions into tokens as the tokenizer does, padded with the end token.

    Args:
        words: Indices into `tiny_scenes.WORDS`, [N, longest].
        table: `word_tokens`, on the same device.
        start: The start token.

    Returns:
        Tokens [N, 77].
    """
    count, longest = words.shape
    tokens = torch.full((count, CONTEXT_TOKENS), int(table[0]), device=words.device)
    tokens[:, 0] = start
    tokens[:, 1 : 1 + longest] = table[words]
    return tokens


def build_vae() -> AutoencoderKL:
    """Make the autoencoder: 128 x 128 x 3 to 16 x 16 x 4."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(32, 48, 64, 64),
        layers_per_block=1,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=8,
        sample_size=tiny_scenes.IMAGE_PX,
    )


def build_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """Make the text encoder for a tokenizer's vocabulary."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=TEXT_WIDTH,
            intermediate_size=4 * TEXT_WIDTH,
            projection_dim=TEXT_WIDTH,
            num_hidden_layers=3,
            num_attention_heads=4,
            max_position_embeddings=CONTEXT_TOKENS,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def build_unet() -> UNet2DConditionModel:
    """Make the U-Net: attention to the text at 16 x 16, 8 x 8 and 4 x 4."""
    return UNet2DConditionModel(
        sample_size=LATENT_SIDE,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        block_out_channels=(64, 128, 128),
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        layers_per_block=1,
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=4,
    )


def build_scheduler() -> DDIMScheduler:
    """Make the scheduler with the noise levels of Stable Diffusion 1.x."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        # The first step is then the noisiest that was trained; else black and white backgrounds drift to gray.
        timestep_spacing="trailing",
    )


def standardize_latents(vae: AutoencoderKL, latents: torch.Tensor) -> None:
    """Fold the latents' channel means and unequal spreads into the 1x1 convolutions on either side, exactly.

    The overall spread stays, and becomes `scaling_factor`.

    Args:
        vae: Changed in place.
        latents: Means of the posterior, [N, 4, 16, 16].
    """
    flat = latents.double().transpose(0, 1).flatten(1)  # [4, N * 256]
    mean, spread = flat.mean(1), flat.std(1)
    overall = spread.square().mean().sqrt()
    gain = overall / spread  # [4]
    before, after = vae.quant_conv, vae.post_quant_conv
    with torch.no_grad():
        # The convolution gives the mean in its first rows and the log variance in the others.
        before.weight[:LATENT_CHANNELS].mul_(gain.to(before.weight)[:, None, None, None])
        before.bias[:LATENT_CHANNELS].sub_(mean.to(before.bias)).mul_(gain.to(before.bias))
        before.bias[LATENT_CHANNELS:].add_(2 * gain.log().to(before.bias))
        after.bias.add_((after.weight[:, :, 0, 0].double() @ mean).to(after.bias))
        after.weight.div_(gain.to(after.weight)[None, :, None, None])
    vae.register_to_config(scaling_factor=round(1.0 / float(overall), 5))


def build_pipeline(
    vae: AutoencoderKL, text_encoder: CLIPTextModel, tokenizer: CLIPTokenizer, unet: UNet2DConditionModel
) -> StableDiffusionPipeline:
    """Put the parts together as a Stable Diffusion pipeline without a safety checker."""
    return StableDiffusionPipeline(
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=build_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def _write_vocabulary(folder: Path, tokenizer: CLIPTokenizer) -> None:
    """Add the files by which tools other than transformers know a CLIP tokenizer."""
    model = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]]
    (folder / "vocab.json").write_text(json.dumps(model["vocab"], ensure_ascii=False), encoding="utf-8")
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n", encoding="utf-8")
    special = {"bos_token": START, "eos_token": END, "pad_token": END, "unk_token": END}
    (folder / "special_tokens_map.json").write_text(json.dumps(special, indent=1), encoding="utf-8")


def _load_as_float32(config: Path) -> None:
    """Let the text encoder load as float32 by default, as diffusers' parts do, though stored as float16."""
    values = json.loads(config.read_text(encoding="utf-8"))
    values["dtype"] = "float32"
    config.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def export(pipeline: StableDiffusionPipeline, folder: Path) -> int:
    """Write the pipeline as a folder of float16 safetensors, and beside it as one tar file.

    Args:
        pipeline: Converted to float16 in place.
        folder: The tar file gets its name and `.tar`.

    Returns:
        Bytes of all weights.
    """
    pipeline.to(torch.float16)
    pipeline.save_pretrained(folder, safe_serialization=True)
    _write_vocabulary(folder / "tokenizer", pipeline.tokenizer)
    _load_as_float32(folder / "text_encoder" / "config.json")
    weights_bytes = sum(path.stat().st_size for path in folder.rglob("*.safetensors"))
    if weights_bytes > LARGEST_BYTES:
        raise ValueError(f"the weights are {weights_bytes} bytes, more than {LARGEST_BYTES}")
    with tarfile.open(folder.with_suffix(".tar"), "w") as archive:
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            # A bare entry, without owner and time: the same weights give the same file.
            entry = tarfile.TarInfo(str(Path(folder.name) / path.relative_to(folder)))
            content = path.read_bytes()
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return weights_bytes


def parameters_millions(module: Any) -> float:
    """Count a module's parameters in millions."""
    return float(sum(p.numel() for p in module.parameters())) / 1e6
