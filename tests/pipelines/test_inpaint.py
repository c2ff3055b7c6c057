"""Pictures as input: U-Nets of nine channels, the task that a bundle is for, and the command line."""

import json

import diffusers
import numpy as np
import pytest
import small_variants
import torch
from PIL import Image

import sdtrt
from sdtrt import cli
from sdtrt.builder import build
from sdtrt.errors import BundleError
from sdtrt.pipelines import eager_pipeline
from sdtrt.verification import image_metrics

SIZE = small_variants.SIZE

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def nine(cache, models):
    """A checkpoint that fills in masks, with a bundle of its U-Net alone: (folder, bundle)."""
    return small_variants.filling(cache, models)


def call_of(size=SIZE):
    picture = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(0))
    mask = (torch.arange(size).expand(1, 1, size, size) > size // 2).float()
    return {"image": picture, "mask_image": mask, "height": size, "width": size, "num_inference_steps": 3}


def run(pipe, **call):
    pipe.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(1)
    return pipe("a red fox", output_type="np", generator=generator, **(call_of() | call)).images


def test_nine_channels_match_eager(nine):
    model, bundle = nine
    stock = eager_pipeline.eager(model)
    assert type(stock) is diffusers.StableDiffusionInpaintPipeline
    ours = sdtrt.load(bundle, options={"threads": 1}, text_encoder=stock.text_encoder, vae=stock.vae)
    assert isinstance(ours, type(stock)), "the checkpoint says what it is for"
    image = run(ours)
    assert image_metrics.psnr(image, run(stock)) >= 40
    assert image_metrics.psnr(run(ours, strength=0.6), run(stock, strength=0.6)) >= 40
    assert not np.array_equal(image, run(ours, image=1 - call_of()["image"])), "the picture is an input"


@pytest.mark.parametrize("task", ["txt2img", "img2img", "controlnet"])
def test_nine_channels_do_nothing_else(nine, task):
    with pytest.raises(BundleError, match="task='inpaint'"):
        sdtrt.load(nine[1], task)


def test_a_build_of_nine_channels_is_compared_with_eager_by_an_image(models, tmp_path):
    """On eager engines, of an SDXL checkpoint whose index names the pipeline for text."""
    model = small_variants.checkpoint(models["sdxl"], tmp_path / "xl", in_channels=9)
    size = {"profiles": [f"B=1,H={SIZE},W={SIZE}"], "profile_runs": 1, "verify_steps": 1}
    bundle = build.build(model, tmp_path / "bundle", backend="eager", **size)
    assert bundle.manifest.image["psnr_db"] >= 60
    ours, stock = sdtrt.load(bundle), eager_pipeline.eager(model)
    assert isinstance(ours, diffusers.StableDiffusionXLInpaintPipeline)
    assert image_metrics.psnr(run(ours, strength=0.99), run(stock, strength=0.99)) >= 60


# ---------------------------------------------------------------------------------------------- command line


@pytest.fixture
def generate(tmp_path, capsys):
    """generate(bundle, arguments...) gives (exit code, pixels in 0..1 or None, what was printed)."""

    def run(bundle, *arguments):
        out = tmp_path / "out" / "picture.png"
        out.unlink(missing_ok=True)
        with pytest.raises(SystemExit) as caught:
            cli.main([str(a) for a in ("generate", bundle.path, "-p", "a fox", "--seed", 1, "-o", out, *arguments)])
        made = np.asarray(Image.open(out)) / 255 if out.exists() else None
        return caught.value.code or 0, made, "".join(capsys.readouterr())

    return run


@pytest.fixture
def files(tmp_path):
    """A picture, larger than the bundle's sizes, and a mask of its right half."""
    picture, mask = tmp_path / "picture.png", tmp_path / "mask.png"
    Image.effect_noise((200, 200), 40).convert("RGB").save(picture)
    Image.fromarray(np.repeat(np.array([[0] * 100 + [255] * 100], dtype="uint8"), 200, axis=0)).save(mask)
    return picture, mask


def test_generate_from_a_picture(bundles, generate, files, tmp_path):
    bundle, source = bundles("sd1"), np.asarray(Image.open(files[0]).resize((128, 128))) / 255
    call = ("--image", files[0], "--steps", 4)
    code, near, text = generate(bundle, *call, "--strength", 0.3, "--record", tmp_path / "run.json")
    assert (code, near.shape) == (0, (128, 128, 3))
    assert "128x128" in text
    far = generate(bundle, *call, "--strength", 1.0)[1]
    assert image_metrics.psnr(near, source) > image_metrics.psnr(far, source) + 3
    calls = json.loads((tmp_path / "run.json").read_text())["engines"]
    assert {"vae_encoder", "unet", "vae_decoder"} < calls.keys()
    assert calls["unet"]["count"] == 1, "of four steps"


def test_generate_into_a_mask(bundles, generate, files):
    bundle, source = bundles("sd1"), np.asarray(Image.open(files[0]).resize((96, 96))) / 255
    size = ("--height", 96, "--width", 96)
    code, made, _ = generate(bundle, "--image", files[0], "--mask", files[1], "--strength", 1, "--steps", 4, *size)
    assert (code, made.shape) == (0, (96, 96, 3))
    left, right = (abs(made - source)[:, part].mean() for part in (slice(0, 40), slice(56, 96)))
    assert left < right


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--mask", "MASK"], "--image"),
        (["--image", "MISSING"], "cannot be read"),
        (["--control", "IMAGE"], "--controlnet"),
        (["--control", "IMAGE", "--image", "IMAGE"], "two tasks"),
        (["--strength", "2"], "strength"),
    ],
    ids=str,
)
def test_pictures_that_do_not_go_together(bundles, generate, files, arguments, words):
    named = {"IMAGE": files[0], "MASK": files[1], "MISSING": files[0].with_name("none.png")}
    code, made, text = generate(bundles("sd1", "fake"), *(named.get(a, a) for a in arguments))
    assert code
    assert made is None
    assert words in text
