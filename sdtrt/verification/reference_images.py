"""Images of the checkpoint's own diffusers pipeline, and the inputs that its components had while it made them.

Random noise does not overflow where a prompt does. The recorded inputs of text encoders, U-Net and VAE decoder make
the component check compare an engine at real activations too.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdtrt import config, lora
from sdtrt.pipelines import eager_pipeline, tasks
from sdtrt.system import malloc

if TYPE_CHECKING:
    from torch import Tensor

# Images that are compared, each with a prompt of its own; when the first takes longer than this, it is the only one.
SEEDS, REPEAT_S = 2, 30.0
Tensors = dict[str, "Tensor"]


@dataclass(frozen=True)
class ReferenceImages:
    """Images (1, H, W, 3) in 0..1 after `steps` steps, one per seed; inputs by component and pipeline call."""

    images: tuple[Any, ...]
    inputs: Mapping[str, Mapping[str, Tensors]]
    steps: int


def compute(
    folder: Path,
    sizes: Mapping[str, int],
    steps: int,
    loras: Sequence[lora.BakedLora] = (),
    progress: Callable[[str], None] = lambda label: None,
) -> ReferenceImages:
    """Make an image for every seed with eager PyTorch, and record the inputs of the first and the last calls.

    Args:
        folder: the checkpoint, in diffusers' layout.
        sizes: "H" and "W" of the images in pixels, and the sizes of further symbols.
        steps: denoising steps of each image.
        loras: LoRAs that are fused into the pipeline.
        progress: receives a label before each image.
    """
    progress("loading eager")
    pipe = eager_pipeline.eager(folder, loras)
    images: list[Any] = []
    inputs: dict[str, dict[str, Tensors]] = {}
    for seed in range(SEEDS):
        progress(f"eager, seed {seed}")
        started = time.perf_counter()
        with _recorded_calls(pipe) as calls:
            images.append(make_image(pipe, sizes, steps, seed))
        for name, recorded in calls.items():
            ends = {0: recorded[0], len(recorded) - 1: recorded[-1]}
            inputs.setdefault(name, {}).update({f"seed {seed}, call {n + 1}": t for n, t in ends.items()})
        if time.perf_counter() - started > REPEAT_S:
            break
    del pipe
    malloc.give_back()
    return ReferenceImages(tuple(images), inputs, steps)


def make_image(pipe: Any, sizes: Mapping[str, int], steps: int, seed: int) -> Any:
    """Make an image (1, H, W, 3) in 0..1.

    Args:
        pipe: a diffusers pipeline.
        sizes: "H" and "W" in pixels, and the sizes of further symbols.
        steps: denoising steps.
        seed: number of the prompt in `config.PROMPTS`, and seed of the noise.
    """
    import torch

    pipe.set_progress_bar_config(disable=True)
    return pipe(
        config.PROMPTS[seed],
        height=sizes["H"],
        width=sizes["W"],
        num_inference_steps=steps,
        generator=torch.Generator().manual_seed(seed),
        latents=initial_latents(pipe, sizes, seed),
        output_type="np",
        **tasks.sample_call(pipe, sizes),
    ).images


def initial_latents(pipe: Any, sizes: Mapping[str, int], seed: int) -> Tensor:
    """The noise that denoising starts from, (1, C, H/8, W/8), drawn in float32 and then cast.

    A pipeline in half precision draws its noise in half precision, and a seed need not give the same numbers there.
    """
    import torch

    shape = (1, pipe.vae.config.latent_channels, *(sizes[axis] // pipe.vae_scale_factor for axis in "HW"))
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(pipe.unet.dtype)


@contextmanager
def _recorded_calls(pipe: Any) -> Iterator[dict[str, list[Tensors]]]:
    """The tensors of every call of the components of `pipe`, under the names of their engines' inputs."""
    calls: dict[str, list[Tensors]] = {}

    def record(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any], name: str) -> None:
        arguments = inspect.signature(module.forward).bind(*args, **kwargs).arguments
        arguments = {**arguments, **(arguments.get("added_cond_kwargs") or {})}
        calls.setdefault(name, []).append({n: v.clone() for n, v in arguments.items() if hasattr(v, "clone")})

    decode = pipe.vae.decode

    def recorded_decode(z: Tensor, *args: Any, **kwargs: Any) -> Any:
        calls.setdefault("vae_decoder", []).append({"latent_sample": z.clone()})
        return decode(z, *args, **kwargs)

    with ExitStack() as stack:
        for name in ("text_encoder", "text_encoder_2", "unet"):
            if (module := getattr(pipe, name, None)) is not None:
                stack.enter_context(module.register_forward_pre_hook(partial(record, name=name), with_kwargs=True))
        stack.callback(setattr, pipe.vae, "decode", decode)
        pipe.vae.decode = recorded_decode
        yield calls
