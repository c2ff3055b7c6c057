"""Eager PyTorch as the reference: a checkpoint's stock pipeline, images made with it, and what its parts were given.

Noise does not overflow where a prompt does. The inputs that U-Net, VAE decoder and text encoders get while an image is
made are kept, so that an engine is compared at them too.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdtrt import config, lora
from sdtrt.pipelines import eager_pipeline, tasks
from sdtrt.system import malloc

if TYPE_CHECKING:
    from torch import Tensor

# Images that are compared, each with a prompt of its own; one that takes long is the only one.
SEEDS, REPEAT_S = 2, 30.0
Tensors = dict[str, "Tensor"]


@dataclass(frozen=True)
class Reference:
    """Images in 0..1, (1, H, W, 3) each, one per seed; and inputs by component and by when they were given."""

    images: tuple[Any, ...]
    inputs: Mapping[str, Mapping[str, Tensors]]


def make(
    folder: Path,
    sizes: Mapping[str, int],
    steps: int,
    loras: Sequence[lora.BakedLora] = (),
    progress: Callable[[str], None] = lambda label: None,
) -> Reference:
    """Make the images of all seeds in `steps` steps with the checkpoint in `folder`."""
    progress("loading eager")
    pipe = eager_pipeline.eager(folder, loras)
    made: list[Any] = []
    kept: dict[str, dict[str, Tensors]] = {}
    for seed in range(SEEDS):
        progress(f"eager, seed {seed}")
        started = time.perf_counter()
        with _recording(pipe) as calls:
            made.append(image(pipe, sizes, steps, seed))
        for name, given in calls.items():
            ends = {0: given[0], len(given) - 1: given[-1]}
            kept.setdefault(name, {}).update({f"seed {seed}, call {n + 1}": t for n, t in ends.items()})
        if time.perf_counter() - started > REPEAT_S:
            break
    del pipe
    malloc.give_back()
    return Reference(tuple(made), kept)


def image(pipe: Any, sizes: Mapping[str, int], steps: int, seed: int) -> Any:
    """An image (1, H, W, 3) in 0..1 with the prompt and the noise of `seed`."""
    import torch

    pipe.set_progress_bar_config(disable=True)
    return pipe(
        config.PROMPTS[seed],
        height=sizes["H"],
        width=sizes["W"],
        num_inference_steps=steps,
        generator=torch.Generator().manual_seed(seed),
        latents=noise(pipe, sizes, seed),
        output_type="np",
        **tasks.sample_call(pipe, sizes),
    ).images


def noise(pipe: Any, sizes: Mapping[str, int], seed: int) -> Tensor:
    """What an image begins with, (1, C, H/8, W/8), drawn in float32 for every pipeline.

    A pipeline in half precision draws in half precision, and nothing promises that a seed then gives the same numbers.
    """
    import torch

    shape = (1, pipe.vae.config.latent_channels, *(sizes[axis] // pipe.vae_scale_factor for axis in "HW"))
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(pipe.unet.dtype)


@contextmanager
def _recording(pipe: Any) -> Iterator[dict[str, list[Tensors]]]:
    """Collects what the parts of `pipe` are given meanwhile, under the names of their engines' inputs."""
    calls: dict[str, list[Tensors]] = {}

    def record(name: str, module: Any) -> Callable[..., None]:
        signature = inspect.signature(module.forward)

        def note(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            given = signature.bind(*args, **kwargs).arguments
            given = {**given, **(given.get("added_cond_kwargs") or {})}
            calls.setdefault(name, []).append({n: v.clone() for n, v in given.items() if hasattr(v, "clone")})

        return note

    decode = pipe.vae.decode

    def noted(z: Tensor, *args: Any, **kwargs: Any) -> Any:
        calls.setdefault("vae_decoder", []).append({"latent_sample": z.clone()})
        return decode(z, *args, **kwargs)

    parts = {n: m for n in ("text_encoder", "text_encoder_2", "unet") if (m := getattr(pipe, n, None)) is not None}
    hooks = [m.register_forward_pre_hook(record(n, m), with_kwargs=True) for n, m in parts.items()]
    pipe.vae.decode = noted
    try:
        yield calls
    finally:
        pipe.vae.decode = decode
        for hook in hooks:
            hook.remove()
