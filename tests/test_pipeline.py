"""The engine-backed pipeline does what the stock pipeline does, argument by argument."""

import pytest
import torch

import sdtrt
from sdtrt import parity

FAMILIES = ("sd1", "sd2", "sdxl")
PROMPT = "a red fox"


@pytest.fixture(scope="module")
def pipes(bundles, models):
    """{family: (engine-backed pipeline, eager pipeline)}."""
    made = {}
    for family in FAMILIES:
        made[family] = sdtrt.load(bundles(family)), parity.eager(models[family])
        for pipe in made[family]:
            pipe.set_progress_bar_config(disable=True)
    return made


def run(pipe, prompt=PROMPT, **call):
    call = {"num_inference_steps": 3, "output_type": "np", "height": 128, "width": 128} | call
    call.setdefault("generator", torch.Generator().manual_seed(1))
    return pipe(prompt, **call).images


@pytest.mark.parametrize("family", FAMILIES)
def test_image_matches_eager(pipes, family):
    ours, stock = (run(p) for p in pipes[family])
    assert parity.psnr(ours, stock) >= 40
