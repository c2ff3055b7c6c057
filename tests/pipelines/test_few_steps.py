"""Models that need few steps: Turbo and LCM run without guidance, and LCM's U-Net is told the guidance scale."""

import diffusers
import numpy as np
import pytest
import small_variants
import torch
from filelock import FileLock

import sdtrt
from sdtrt.pipelines import eager_pipeline, tasks
from sdtrt.verification import image_metrics

SIZE = small_variants.SIZE

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def lcm(cache, models):
    """An LCM checkpoint, with a bundle of its U-Net alone, on eager engines: (eager pipeline, bundle)."""
    with FileLock(cache / "lcm.lock"):
        model = small_variants.checkpoint(models["sd2"], cache / "lcm", time_cond_proj_dim=16)
    return with_lcm(eager_pipeline.eager(model)), small_variants.build(cache, model, "eager", ("unet",))


def with_lcm(pipe):
    pipe.scheduler = diffusers.LCMScheduler.from_config(pipe.scheduler.config)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def engines_for(lcm, task=None):
    stock, bundle = lcm
    options = {"threads": 1} if bundle.manifest.backend == "onnxruntime" else {}
    return with_lcm(sdtrt.load(bundle, task, options=options, text_encoder=stock.text_encoder, vae=stock.vae))


def run(pipe, size=SIZE, **call):
    call = {"num_inference_steps": 4, "height": size, "width": size, "output_type": "np"} | call
    return pipe("a red fox", generator=torch.Generator().manual_seed(1), **call).images


@pytest.mark.parametrize("steps", [1, 4])
def test_lcm_matches_eager_and_runs_one_row_for_each_image(lcm, monkeypatch, steps):
    ours, rows = engines_for(lcm), []
    engine = ours.unet.engines["unet"]
    called = lambda **t: (rows.append(t["sample"].shape[0]), engine(**t))[1]  # noqa: E731
    called.spec = engine.spec
    monkeypatch.setitem(ours.unet.engines, "unet", called)
    image = run(ours, num_inference_steps=steps, guidance_scale=8.0)
    assert rows == [1] * steps
    assert image_metrics.psnr(image, run(lcm[0], num_inference_steps=steps, guidance_scale=8.0)) >= 40
    assert not np.array_equal(image, run(ours, num_inference_steps=steps, guidance_scale=2.0)), "the scale is an input"


def test_lcm_from_a_picture(lcm):
    ours = engines_for(lcm, "img2img")
    stock = with_lcm(type(ours)(**lcm[0].components, requires_safety_checker=False))
    picture = torch.rand(1, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    assert image_metrics.psnr(*(edit(pipe, image=picture, strength=0.8) for pipe in (ours, stock))) >= 60


def test_lcm_in_an_exported_graph(cache, models):
    """Of a U-Net that also takes a picture and a mask."""
    model, bundle = small_variants.filling(cache, models)
    stock = with_lcm(eager_pipeline.eager(model))
    ours = engines_for((stock, bundle))
    call = tasks.sample_call(stock, {"H": SIZE, "W": SIZE}) | {"height": SIZE, "width": SIZE}
    image = edit(ours, **call, guidance_scale=8.0)
    assert image_metrics.psnr(image, edit(stock, **call, guidance_scale=8.0)) >= 40
    assert not np.array_equal(image, edit(ours, **call, guidance_scale=2.0))


def edit(pipe, **call):
    generator = torch.Generator().manual_seed(1)
    return pipe("a fox", num_inference_steps=3, output_type="np", generator=generator, **call).images


def test_a_guidance_that_is_not_given_adds_nothing(lcm):
    unet, stock = engines_for(lcm).unet, lcm[0].unet
    sample, context = torch.randn(2, 4, 8, 8), torch.randn(2, 77, 32)
    with torch.no_grad():
        want = stock(sample, 7, context).sample
    torch.testing.assert_close(unet(sample, 7, context).sample, want)


def test_a_guidance_that_the_unet_does_not_take_is_refused(bundles):
    unet = sdtrt.load(bundles("sd1", "fake")).unet
    with pytest.raises(NotImplementedError, match="timestep_cond"):
        unet(torch.zeros(1, 4, 16, 16), 1, torch.zeros(1, 77, 128), timestep_cond=torch.zeros(1, 16))


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_turbo(bundles, models, monkeypatch, steps):
    """As SDXL Turbo is run: Euler ancestral, trailing timesteps, no guidance."""
    ours, stock = sdtrt.load(bundles("sdxl"), options={"threads": 1}), eager_pipeline.eager(models["sdxl"])
    for pipe in (ours, stock):
        pipe.scheduler = diffusers.EulerAncestralDiscreteScheduler.from_config(
            pipe.scheduler.config, timestep_spacing="trailing"
        )
        pipe.set_progress_bar_config(disable=True)
    rows = []
    engine = ours.unet.engines["unet"]
    monkeypatch.setattr(engine, "_run", lambda t, run=engine._run: (rows.append(t["sample"].shape[0]), run(t))[1])
    call = {"num_inference_steps": steps, "guidance_scale": 0.0}
    assert image_metrics.psnr(run(ours, 128, **call), run(stock, 128, **call)) >= 40
    assert rows == [1] * steps
