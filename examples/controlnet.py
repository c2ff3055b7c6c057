"""Draw along the edges of a picture: `python controlnet.py BUNDLE PICTURE`, for a bundle built with `--controlnet`.

sdtrt build stable-diffusion-v1-5/stable-diffusion-v1-5 --controlnet lllyasviel/control_v11p_sd15_canny --out BUNDLE
"""

from __future__ import annotations

import sys

import torch
from PIL import Image, ImageFilter

import sdtrt


def main(bundle: str, picture: str, prompt: str = "a lighthouse at dusk", steps: int = 20) -> None:
    """Draw at the size of the picture, which one of the bundle's profiles must hold, at two strengths."""
    original = Image.open(picture).convert("L")
    edges = original.filter(ImageFilter.FIND_EDGES).point(lambda value: 255 * (value > 60)).convert("RGB")
    pipe = sdtrt.load(bundle, "controlnet")
    for scale in (0.5, 1.0):
        generator = torch.Generator().manual_seed(1)
        images = pipe(
            prompt,
            image=edges,
            width=edges.width,
            height=edges.height,
            controlnet_conditioning_scale=scale,
            num_inference_steps=steps,
            generator=generator,
        ).images
        images[0].save(f"control-{scale}.png")


if __name__ == "__main__":
    main(*sys.argv[1:])
