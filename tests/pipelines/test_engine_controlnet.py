"""ControlNet: engines and eager diffusers draw the same picture, and without one the U-Net is the plain one."""

import inspect
from contextlib import ExitStack

import numpy as np
import pytest
import shared_exports
import small_variants
import torch
from diffusers import (
    ControlNetModel,
    StableDiffusionControlNetPipeline,
    StableDiffusionXLControlNetPipeline,
    UNet2DConditionModel,
)
from PIL import Image
from trt import use
from trt.bindings import NEWEST, Unreachable

import sdtrt
from sdtrt import cli
from sdtrt.builder import build, planning
from sdtrt.config import BuildConfig
from sdtrt.errors import BundleError, ModelError, ShapeError, Unsupported
from sdtrt.models import family_of
from sdtrt.models import skeleton as skeleton_of
from sdtrt.pipelines import eager_pipeline
from sdtrt.pipelines.engine_controlnet import EngineControlNet
from sdtrt.pipelines.engine_loading import engines_of
from sdtrt.pipelines.engine_modules import EngineUNet
from sdtrt.shapes.sample_inputs import sample_inputs
from sdtrt.verification import image_metrics

SIZE = small_variants.SIZE

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def small(cache, models):
    """The checkpoint, its ControlNet's folder, and the bundle of its U-Net and ControlNet."""
    return small_variants.controlled(cache, models)


@pytest.fixture(scope="module")
def stock(small):
    """The eager pipeline; parts that the bundle leaves out are taken from it."""
    return eager_pipeline.eager(small[0])


@pytest.fixture(scope="module")
def nets(small, tmp_path_factory):
    """The ControlNet in the bundle, and one that is in none."""
    more = tmp_path_factory.mktemp("nets") / "more"
    return [small_variants.controlnet(small[0], f, seed) for f, seed in ((small[1], 0), (more, 5))]


def others(stock):
    """What the small bundle holds no engine of."""
    return {n: m for n, m in stock.components.items() if n in ("text_encoder", "vae")}


def load(bundle, stock, **given):
    given = {**others(stock), **given}
    return quiet(sdtrt.load(bundle, "controlnet", options={"threads": 1}, **given))


def eager(stock, net, cls=StableDiffusionControlNetPipeline):
    parts = {"requires_safety_checker": False} if "safety_checker" in stock.components else {}
    return quiet(cls(**stock.components, controlnet=net, **parts))


def quiet(pipe):
    pipe.set_progress_bar_config(disable=True)
    return pipe


def picture(seed=0):
    return torch.rand(1, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(seed))


def run(pipe, prompt="a red fox", **call):
    call = {"image": picture(), "num_inference_steps": 2, "output_type": "np", "height": SIZE, "width": SIZE} | call
    return pipe(prompt, generator=torch.Generator().manual_seed(1), **call).images


@pytest.fixture(scope="module")
def pair(small, stock, nets):
    return load(small[2], stock), eager(stock, nets[0])


@pytest.mark.parametrize(
    "call",
    [
        {},
        {"controlnet_conditioning_scale": 0.4},
        {"guess_mode": True},
        {"guidance_scale": 1.0},
        {"control_guidance_end": 0.5},
        {"num_images_per_prompt": 2, "negative_prompt": "ugly"},
    ],
    ids=lambda call: ", ".join(call) or "plain",
)
def test_images_match_eager(pair, call):
    ours, theirs = (run(pipe, **call) for pipe in pair)
    assert image_metrics.psnr(ours, theirs) >= 40
    assert image_metrics.psnr(ours, run(pair[0], controlnet_conditioning_scale=0.0, image=picture(3))) < 35


def test_the_picture_matters_and_the_stock_class_runs(pair):
    assert isinstance(pair[0], StableDiffusionControlNetPipeline)
    assert not np.allclose(run(pair[0]), run(pair[0], image=picture(7)), atol=1e-2)
    assert set(engines_of(pair[0])) == {"unet", "controlnet"}


def test_without_residuals_the_unet_is_the_plain_one(small, stock):
    ours = quiet(sdtrt.load(small[2], options={"threads": 1}, **others(stock)))
    call = {"num_inference_steps": 2, "output_type": "np", "height": SIZE, "width": SIZE}
    images = [p("a fox", generator=torch.Generator().manual_seed(1), **call).images for p in (ours, stock)]
    assert image_metrics.psnr(*images) >= 40
    assert "controlnet" not in engines_of(ours), "an engine that is not used is not loaded"


def test_two_controlnets_with_an_engine_and_without(small, stock, nets):
    pictures = {"image": [picture(), picture(2)], "controlnet_conditioning_scale": [0.7, 0.3]}
    want = run(eager(stock, nets), **pictures)
    assert image_metrics.psnr(run(load(small[2], stock, controlnet=nets), **pictures), want) >= 40
    mixed = load(small[2], stock, controlnet=[load(small[2], stock).controlnet, nets[1]])
    assert image_metrics.psnr(run(mixed, **pictures), want) >= 40
    assert set(engines_of(mixed)) == {"unet", "controlnet"}


def test_residuals_that_hold_for_all_pixels_are_spread(small, stock):
    """As those of a ControlNet with `global_pool_conditions`."""
    ours = load(small[2], stock).unet
    sample, context = torch.randn(2, 4, 8, 8), torch.randn(2, 77, 32)
    shapes = [t.shape for t in ours.engines["unet"].spec.inputs if "residual" in t.name]
    *down, middle = (torch.randn(2, shape[1], 1, 1) for shape in shapes)
    call = {"down_block_additional_residuals": tuple(down), "mid_block_additional_residual": middle}
    with torch.no_grad():
        want = stock.unet(sample, 7, context, **call).sample
    torch.testing.assert_close(ours(sample, 7, context, **call).sample, want, rtol=1e-3, atol=1e-4)


def test_residuals_that_do_not_belong_are_refused(small, stock):
    unet = load(small[2], stock).unet
    sample, context = torch.zeros(1, 4, 8, 8), torch.zeros(1, 77, 32)
    call = {"mid_block_additional_residual": torch.zeros(1, 32, 4, 4)}
    with pytest.raises(Unsupported, match="2 residuals"):
        unet(sample, 1, context, down_block_additional_residuals=[torch.zeros(1, 32, 8, 8)], **call)
    with pytest.raises(NotImplementedError, match="mid_block_additional_residual"):
        unet(sample, 1, context, **call)
    down = [torch.zeros(1, 32, 5, 8)] * 4
    with pytest.raises(ShapeError):
        unet(sample, 1, context, down_block_additional_residuals=down, **call)


def test_a_bundle_without_it_says_how_to_build_it(bundles):
    with pytest.raises(BundleError, match="--controlnet") as caught:
        sdtrt.load(bundles("sd1", "fake"), "controlnet")
    assert caught.value.slug == "controlnet-unet"


def test_accelerate_keeps_the_users_controlnet(small, stock, nets, bundles):
    pipe = eager(stock, nets[1])
    want = run(pipe)
    with pytest.raises(BundleError, match="--controlnet"):
        sdtrt.accelerate(pipe, bundles("sd1", "fake"))
    sdtrt.accelerate(pipe, small[2], options={"threads": 1})
    assert pipe.controlnet is nets[1]
    assert set(engines_of(pipe)) == {"unet"}
    assert image_metrics.psnr(run(pipe), want) >= 40


def test_the_key_of_the_unet_says_that_it_is_another_graph(small, tmp_path):
    def keys(**settings):
        config = BuildConfig(model=str(small[0]), backend="fake", **settings)
        return {s.spec.name: s.key for s in planning.plan_build(config, tmp_path / "none").steps}

    plain, taking, built_in = keys(), keys(controlnet=[]), keys(controlnet=[str(small[1])])
    assert "variant" not in plain["unet"]
    assert taking["unet"] == built_in["unet"] == {**plain["unet"], "variant": "ControlNet residuals"}
    assert built_in.keys() - taking.keys() == {"controlnet"}
    assert built_in["controlnet"]["weights"] != built_in["unet"]["weights"]
    assert plain["vae_decoder"] == built_in["vae_decoder"]


def test_the_command_line_builds_it_in(small, tmp_path, capsys):
    call = ["build", small[0], "--out", tmp_path / "b", "--backend", "fake", "--controlnet", small[1], "--dry-run"]
    with pytest.raises(SystemExit) as caught:
        cli.main([str(c) for c in call])
    assert not caught.value.code
    assert "controlnet" in capsys.readouterr().out


def test_an_adapter_finds_its_place_in_a_unet_with_residuals(small):
    """What LoRA code works on: the structure of the U-Net, called as its engine is."""
    spec = family_of(small[0]).components(small[0], "fp32", {})["unet"]
    skeleton = skeleton_of(spec, small[0])
    skeleton.load_state_dict(spec.load(small[0]).state_dict(), assign=True)
    inputs = sample_inputs(spec, {"B": 1, "H": SIZE, "W": SIZE, "T": 77})
    torch.testing.assert_close(skeleton(**inputs), spec.load(small[0])(**inputs))


def test_what_is_not_a_controlnet_for_this_model_is_refused(small, models, tmp_path):
    other = tmp_path / "other"
    small_variants.controlnet(models["sd1"], other)
    for given, slug in ((small[0] / "unet", "controlnet-missing"), (other, "controlnet-other-model")):
        with pytest.raises(ModelError) as caught:
            planning.plan_build(
                BuildConfig(model=str(small[0]), backend="fake", controlnet=[str(given)]), tmp_path / "b"
            )
        assert caught.value.slug == slug


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_the_spec_lists_the_residuals_that_diffusers_makes(models, tmp_path, family):
    small_variants.controlnet(models[family], tmp_path / "net")
    folder, sizes = models[family], {"B": 1, "H": 128, "W": 64, "T": 77}
    specs = family_of(folder).components(folder, "fp32", {"controlnet": tmp_path / "net"})
    spec = specs["controlnet"]
    shapes = [tuple(o.shape) for o in spec.load(folder)(**sample_inputs(spec, sizes))]
    assert shapes == [t.resolve(sizes) for t in spec.outputs]
    assert shapes == [t.resolve(sizes) for t in specs["unet"].inputs if "residual" in t.name]


def test_sdxl_and_the_command_line_on_eager_engines(models, tmp_path, capsys):
    """Two ControlNets, each with a picture of its own."""
    model, nets = small_variants.checkpoint(models["sdxl"], tmp_path / "xl"), [tmp_path / "net", tmp_path / "more"]
    made = [small_variants.controlnet(model, folder, seed) for seed, folder in enumerate(nets)]
    size = {"profiles": [f"B=1,H={SIZE},W={SIZE}"], "profile_runs": 1, "verify_steps": 1}
    bundle = build.build(model, tmp_path / "bundle", backend="eager", controlnet=[str(n) for n in nets], **size)
    ours, theirs = (
        quiet(sdtrt.load(bundle, "controlnet")),
        eager(eager_pipeline.eager(model), made, StableDiffusionXLControlNetPipeline),
    )
    assert isinstance(ours, type(theirs))
    pictures = {"image": [picture(), picture(2)], "controlnet_conditioning_scale": [0.7, 0.3]}
    assert image_metrics.psnr(run(ours, **pictures), run(theirs, **pictures)) >= 60

    files, seen = [tmp_path / "a.png", tmp_path / "b.png"], []
    for index, file in enumerate(files):
        Image.fromarray((picture(index)[0].permute(1, 2, 0).numpy() * 255).astype("uint8")).save(file)
    for order in (files, files[::-1]):
        call = ["generate", bundle.path, "-p", "x", "--steps", 1, "--seed", 1, "-o", tmp_path / "out.png"]
        call += ["--control", order[0], "--control", order[1], "--control-scale", 0.8]
        with pytest.raises(SystemExit) as caught:
            cli.main([str(c) for c in call])
        assert not caught.value.code
        seen.append((tmp_path / "out.png").read_bytes())
    assert "controlnet_2" in capsys.readouterr().out
    assert seen[0] != seen[1]


def test_on_tensorrt(cache, models):
    """The double of it, which runs the graph that the real one would read."""
    with ExitStack() as stack:
        try:
            stack.enter_context(use.tensorrt(NEWEST, cache))
        except Unreachable as exc:
            pytest.skip(str(exc))
        stack.enter_context(shared_exports.shared(cache / "exports"))
        model, net, bundle = small_variants.controlled(cache, models, "tensorrt")
        stock = eager_pipeline.eager(model)
        ours = quiet(sdtrt.load(bundle, "controlnet", **others(stock)))
        want = run(eager(stock, small_variants.controlnet(model, net)))
        assert image_metrics.psnr(run(ours), want) >= 40
        for engine in engines_of(ours).values():
            engine.close()


@pytest.mark.parametrize(
    ("ours", "stock"),
    [(EngineUNet, UNet2DConditionModel), (EngineControlNet, ControlNetModel)],
    ids=["unet", "controlnet"],
)
def test_arguments_stand_in_the_order_of_diffusers(ours, stock):
    positional = [
        [p.name for p in inspect.signature(cls.forward).parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
        for cls in (ours, stock)
    ]
    assert positional[0] == positional[1]
