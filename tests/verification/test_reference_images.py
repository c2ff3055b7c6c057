"""Images that are compared begin alike, whatever a pipeline computes in."""

from types import SimpleNamespace

import pytest
import torch

from sdtrt.verification import reference_images


class Pipe:
    """Keeps what it is called with."""

    vae_scale_factor = 8

    def __init__(self, dtype):
        self.unet = SimpleNamespace(dtype=dtype, config=SimpleNamespace(in_channels=4))
        self.vae = SimpleNamespace(config=SimpleNamespace(latent_channels=4))

    def set_progress_bar_config(self, disable):
        pass

    def __call__(self, prompt, **given):
        self.given = given
        return SimpleNamespace(images=None)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_noise_is_drawn_in_float32(dtype):
    pipe = Pipe(dtype)
    reference_images.make_image(pipe, {"B": 1, "H": 32, "W": 16}, 4, seed=7)
    drawn = torch.randn((1, 4, 4, 2), generator=torch.Generator().manual_seed(7))
    assert torch.equal(pipe.given["latents"], drawn.to(dtype))
