"""Switch LoRAs on engines: `python lora.py BUNDLE FIRST.safetensors SECOND.safetensors` writes four pictures."""

from __future__ import annotations

import sys

import torch
from diffusers import StableDiffusionPipeline

import sdtrt

PROMPT = "a red circle on a blue background"
WEIGHTS = {"first": [1.0, 0.0], "second": [0.0, 1.0], "both": [0.6, 0.4]}


def main(bundle: str, first: str, second: str, steps: int = 20) -> None:
    """One picture for each combination, and one after the way back, which is that of the build to the bit."""
    pipe = sdtrt.load(bundle)
    pipe.load_lora_weights(first, adapter_name="first")
    pipe.load_lora_weights(second, adapter_name="second")
    for name, weights in WEIGHTS.items():
        pipe.set_adapters(["first", "second"], weights)
        print(pipe.lora_switch.last)
        picture(pipe, f"{name}.png", steps)
    pipe.unload_lora_weights()
    picture(pipe, "none.png", steps)


def picture(pipe: StableDiffusionPipeline, name: str, steps: int) -> None:
    """Draw with the same noise each time, so that only the weights differ."""
    pipe(PROMPT, num_inference_steps=steps, generator=torch.Generator().manual_seed(1)).images[0].save(name)


if __name__ == "__main__":
    main(*sys.argv[1:])
