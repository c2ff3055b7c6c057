"""The engine-backed pipeline does what the stock pipeline does, argument by argument, or raises with the reason."""

import inspect
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import diffusers
import numpy as np
import pytest
import torch
from diffusers.callbacks import MultiPipelineCallbacks, SDCFGCutoffCallback, SDXLCFGCutoffCallback
from safetensors.torch import save_file

import sdtrt
from sdtrt.errors import BundleError, ConfigError, ShapeError, Unsupported
from sdtrt.pipelines import adapter, eager_pipeline
from sdtrt.pipelines.engine_loading import load_engines
from sdtrt.pipelines.engine_modules import NORM, EngineModule
from sdtrt.pipelines.load import comparable_config
from sdtrt.pipelines.timed_call import timed
from sdtrt.shapes.sample_inputs import sample_inputs
from sdtrt.verification import image_metrics

FAMILIES = ("sd1", "sd2", "sdxl")
PROMPT = "a red fox"


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def pipes(bundles, models):
    """{family: (engine-backed pipeline, eager pipeline)}."""
    made = {}
    for family in FAMILIES:
        made[family] = load(bundles(family)), eager_pipeline.eager(models[family])
        for pipe in made[family]:
            pipe.set_progress_bar_config(disable=True)
    return made


@pytest.fixture(scope="module")
def plain(pipes):
    """The image of each family without any argument, as an array."""
    return {family: run(ours) for family, (ours, _) in pipes.items()}


def load(bundle, **given):
    """With one thread, as torch has here: more would only wait for each other on tensors this small."""
    pipe = sdtrt.load(bundle, options={"threads": 1}, **given)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def noise(seed=1):
    return torch.Generator().manual_seed(seed)


def run(pipe, prompt=PROMPT, **call):
    call = {"num_inference_steps": 3, "output_type": "np", "height": 128, "width": 128} | call
    call.setdefault("generator", noise())
    return pipe(prompt, **call).images


def array(images):
    if isinstance(images, torch.Tensor):
        return images.numpy()
    return images if isinstance(images, np.ndarray) else np.stack([np.asarray(i) / 255.0 for i in images])


def same(pair, make=dict, call=run):
    """Both pipelines with arguments of their own (generators are used up) give the same image, which is returned."""
    ours, stock = (array(call(pipe, **make())) for pipe in pair)
    assert ours.shape == stock.shape
    assert image_metrics.psnr(ours, stock) >= 40
    return ours


def twin(stock, cls=None, **given):
    """Another stock pipeline, of class `cls`, with the same parts."""
    if "safety_checker" in stock.components:
        given["requires_safety_checker"] = False
    pipe = (cls or type(stock))(**stock.components, **given)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def embeds(pair, prompt, negative=""):
    """What the stock pipeline's `encode_prompt` returns."""
    return pair[1].encode_prompt(
        prompt=prompt, device="cpu", num_images_per_prompt=1, do_classifier_free_guidance=True, negative_prompt=negative
    )


# ---------------------------------------------------------------------------------------------- arguments


@pytest.mark.parametrize("family", FAMILIES)
def test_image_matches_eager(pipes, family):
    same(pipes[family])


CALLS = {
    "seed 0": lambda: {"generator": noise(0)},
    "other prompt": lambda: {"prompt": "a blue whale"},
    "no prompt": lambda: {"prompt": ""},
    "two prompts": lambda: {"prompt": [PROMPT, "a blue whale"]},
    "two images": lambda: {"num_images_per_prompt": 2},
    "list of generators": lambda: {"num_images_per_prompt": 2, "generator": [noise(3), noise(4)]},
    "negative prompt": lambda: {"negative_prompt": "ugly"},
    "negative prompts": lambda: {"prompt": [PROMPT, "a blue whale"], "negative_prompt": ["ugly", "green"]},
    "no guidance": lambda: {"guidance_scale": 0.0},
    "guidance 1": lambda: {"guidance_scale": 1.0},
    "guidance 15": lambda: {"guidance_scale": 15.0},
    "guidance rescale": lambda: {"guidance_rescale": 0.9},
    "two steps": lambda: {"num_inference_steps": 2},
    "timesteps": lambda: {"timesteps": [900, 500, 20]},
    "sigmas": lambda: {"sigmas": [12.0, 5.0, 0.7]},
    "latents": lambda: {"latents": torch.randn(1, 4, 16, 16, generator=noise(5))},
    "default size": lambda: {"height": None, "width": None},
}


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
@pytest.mark.parametrize("case", CALLS)
def test_argument(pipes, plain, monkeypatch, family, case):
    if case in ("timesteps", "sigmas"):  # DDIM, the embedded model's scheduler, takes neither
        swap(pipes[family], monkeypatch, "Euler linspace")
    image = same(pipes[family], CALLS[case])
    if case != "default size":
        assert image_metrics.psnr(image[-1:], plain[family]) < 60, "the argument changed nothing"


def test_v_prediction_with_guidance_rescale(pipes):
    same(pipes["sd2"], lambda: {"guidance_rescale": 0.7, "negative_prompt": "ugly"})


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_same_seed_same_image(pipes, plain, family):
    assert np.array_equal(run(pipes[family][0]), plain[family])


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
@pytest.mark.parametrize(
    ("prompt", "call"),
    [
        (PROMPT, {"generator": [noise(), noise()]}),
        (PROMPT, {"height": 100}),
        (PROMPT, {"width": 124}),
        (None, {}),
        (PROMPT, {"prompt_embeds": torch.zeros(1, 77, 32)}),
        (PROMPT, {"callback_on_step_end": dict, "callback_on_step_end_tensor_inputs": ["nothing"]}),
        (PROMPT, {"negative_prompt": ["one", "two"], "prompt": [PROMPT]}),
        (PROMPT, {"sigmas": [1.0], "timesteps": [1]}),
    ],
)
def test_wrong_arguments_raise_as_stock_does(pipes, family, prompt, call):
    call = {"prompt": prompt} | call
    for pipe in pipes[family]:
        with pytest.raises(ValueError):  # noqa: PT011 (diffusers words it)
            run(pipe, **call)


@pytest.mark.parametrize(("scale", "batch"), [(0.0, 1), (1.0, 1), (7.5, 2)])
def test_guidance_decides_the_unet_batch(pipes, monkeypatch, scale, batch):
    ours = pipes["sd1"][0]
    seen = []
    forward = ours.unet.forward
    monkeypatch.setattr(ours.unet, "forward", lambda x, *a, **k: (seen.append(len(x)), forward(x, *a, **k))[1])
    run(ours, guidance_scale=scale)
    assert seen == [batch] * 3


@pytest.mark.parametrize("size", [(64, 64), (64, 192), (160, 96), (192, 192)])
def test_dynamic_sizes(pipes, size):
    image = same(pipes["sd1"], lambda: {"height": size[0], "width": size[1]})
    assert image.shape == (1, *size, 3)


def test_sd_prompt_embeds(pipes, plain):
    pair = pipes["sd1"]
    positive, negative = embeds(pair, "a blue whale", "ugly")
    image = same(pair, lambda: {"prompt": None, "prompt_embeds": positive, "negative_prompt_embeds": negative})
    direct = run(pair[0], "a blue whale", negative_prompt="ugly")
    assert image_metrics.psnr(image, direct) > 60 > image_metrics.psnr(image, plain["sd1"])


def test_xl_prompt_embeds(pipes):
    pair = pipes["sdxl"]
    names = ("prompt_embeds", "negative_prompt_embeds", "pooled_prompt_embeds", "negative_pooled_prompt_embeds")
    given = dict(zip(names, embeds(pair, "a blue whale", "ugly"), strict=True))
    image = same(pair, lambda: {"prompt": None, **given})
    assert image_metrics.psnr(image, run(pair[0], "a blue whale", negative_prompt="ugly")) > 60
    del given["pooled_prompt_embeds"]
    with pytest.raises(ValueError, match="pooled_prompt_embeds"):
        run(pair[0], None, **given)


@pytest.mark.parametrize("family", FAMILIES)
def test_encode_prompt(pipes, family):
    results = [embeds((None, pipe), ["one", "two"], ["three", "four"]) for pipe in pipes[family]]
    assert len(results[0]) == (4 if family == "sdxl" else 2)
    for got, want in zip(*results, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("skip", [0, 1, 2])
def test_sd_clip_skip(pipes, skip):
    """By hand: the stock pipeline fails here, since transformers 5 has no `text_model` in CLIPTextModel."""
    ours, stock = pipes["sd1"]
    ids = stock.tokenizer(PROMPT, padding="max_length", max_length=77, return_tensors="pt").input_ids
    with torch.no_grad():
        states = stock.text_encoder(ids, output_hidden_states=True).hidden_states
        want = stock.text_encoder.final_layer_norm(states[-(skip + 1)])
    got = ours.encode_prompt(PROMPT, "cpu", 1, False, clip_skip=skip)[0]
    torch.testing.assert_close(got, want, rtol=1e-3, atol=1e-4)
    image = run(stock, None, prompt_embeds=want, guidance_scale=1.0)
    assert image_metrics.psnr(run(ours, clip_skip=skip, guidance_scale=1.0), image) >= 40


def test_sd_clip_skip_takes_the_norm_from_the_bundle(bundle_copy):
    folder = bundle_copy("sd1", "onnxruntime")
    weights = {"weight": torch.arange(128.0), "bias": torch.ones(128)}
    save_file(weights, folder / "text_encoder" / NORM)
    assert (folder / "text_encoder" / NORM).stat().st_size == 1160  # as recorded
    norm = load(folder).text_encoder.text_model.final_layer_norm
    assert all(torch.equal(tensor, weights[name]) for name, tensor in norm.state_dict().items())


XL_CALLS = {
    "prompt_2": lambda: {"prompt_2": "a blue whale"},
    "negative_prompt_2": lambda: {"negative_prompt": "ugly", "negative_prompt_2": "green"},
    "original_size": lambda: {"original_size": (512, 64)},
    "crops_coords_top_left": lambda: {"crops_coords_top_left": (64, 300)},
    "target_size": lambda: {"target_size": (1024, 512)},
    "negative sizes": lambda: {
        "negative_original_size": (32, 32),
        "negative_crops_coords_top_left": (100, 9),
        "negative_target_size": (900, 900),
    },
    "clip_skip": lambda: {"clip_skip": 1},
}


@pytest.mark.parametrize("case", XL_CALLS)
def test_xl_argument(pipes, plain, case):
    image = same(pipes["sdxl"], XL_CALLS[case])
    assert not np.array_equal(image, plain["sdxl"]), "the argument changed nothing"


def test_xl_denoising_end(pipes):
    same(pipes["sdxl"], lambda: {"denoising_end": 0.5, "num_inference_steps": 4, "output_type": "latent"})
    assert pipes["sdxl"][0].num_timesteps == 2


def test_xl_force_zeros_for_empty_prompt(pipes, plain, bundle_copy):
    folder = bundle_copy("sdxl", "onnxruntime")
    index = json.loads((folder / "pipeline" / "model_index.json").read_text())
    index["force_zeros_for_empty_prompt"] = False
    (folder / "pipeline" / "model_index.json").write_text(json.dumps(index))
    stock = twin(pipes["sdxl"][1], force_zeros_for_empty_prompt=False)
    assert image_metrics.psnr(same((load(folder), stock)), plain["sdxl"]) < 60


# ---------------------------------------------------------------------------------------------- outputs


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
@pytest.mark.parametrize("kind", ["pil", "np", "pt", "latent"])
def test_output_types(pipes, family, kind):
    ours, stock = (run(pipe, output_type=kind) for pipe in pipes[family])
    assert type(ours) is type(stock)
    if kind == "pil":
        assert (ours[0].size, ours[0].mode) == (stock[0].size, stock[0].mode)
    else:
        assert (ours.shape, ours.dtype) == (stock.shape, stock.dtype)
    assert image_metrics.psnr(array(ours), array(stock)) >= 40


@pytest.mark.parametrize(("family", "length"), [("sd1", 2), ("sdxl", 1)])
def test_return_dict(pipes, plain, family, length):
    ours = pipes[family][0]
    result = ours(PROMPT, num_inference_steps=3, generator=noise(), output_type="np", return_dict=False)
    assert isinstance(result, tuple)
    assert len(result) == length
    assert np.array_equal(result[0], plain[family])


# ---------------------------------------------------------------------------------------------- callbacks


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_callback_sees_and_changes_tensors(pipes, plain, family):
    seen = {pipe: [] for pipe in pipes[family]}

    def change(pipe, i, t, tensors):
        seen[pipe].append((i, float(t), {n: tuple(v.shape) for n, v in tensors.items()}))
        tensors["latents"] *= 0.8  # in place, as callbacks in the wild do
        return tensors

    names = pipes[family][0]._callback_tensor_inputs
    image = same(pipes[family], lambda: {"callback_on_step_end": change, "callback_on_step_end_tensor_inputs": names})
    ours, stock = seen.values()
    assert len(ours) == 3
    assert ours == stock
    assert image_metrics.psnr(image, plain[family]) < 60


def test_interrupt(pipes, plain):
    steps = []

    def stop(pipe, i, t, tensors):
        steps.append(i)
        pipe._interrupt = True
        return tensors

    image = same(pipes["sd1"], lambda: {"callback_on_step_end": stop})
    assert steps == [0, 0]
    assert image_metrics.psnr(image, plain["sd1"]) < 60
    assert np.array_equal(run(pipes["sd1"][0]), plain["sd1"]), "the next call starts afresh"


@pytest.mark.parametrize(("family", "cutoff"), [("sd1", SDCFGCutoffCallback), ("sdxl", SDXLCFGCutoffCallback)])
def test_guidance_switched_off_in_mid_run(pipes, plain, family, cutoff):
    callback = MultiPipelineCallbacks([cutoff(cutoff_step_ratio=None, cutoff_step_index=0)])
    image = same(
        pipes[family],
        lambda: {"callback_on_step_end": callback, "callback_on_step_end_tensor_inputs": cutoff.tensor_inputs},
    )
    assert image_metrics.psnr(image, plain[family]) < 60


# ---------------------------------------------------------------------------------------------- schedulers

SCHEDULERS = {
    "DDIM": ("DDIMScheduler", {}),
    "DDIM trailing, zero SNR": ("DDIMScheduler", {"timestep_spacing": "trailing", "rescale_betas_zero_snr": True}),
    "DDPM": ("DDPMScheduler", {}),
    "PNDM": ("PNDMScheduler", {"skip_prk_steps": True}),
    "LMS": ("LMSDiscreteScheduler", {}),
    "Euler Karras": ("EulerDiscreteScheduler", {"use_karras_sigmas": True}),
    "Euler trailing": ("EulerDiscreteScheduler", {"timestep_spacing": "trailing"}),
    "Euler linspace": ("EulerDiscreteScheduler", {"timestep_spacing": "linspace"}),
    "Euler ancestral": ("EulerAncestralDiscreteScheduler", {}),
    "Heun": ("HeunDiscreteScheduler", {}),
    "KDPM2": ("KDPM2DiscreteScheduler", {}),
    "KDPM2 ancestral": ("KDPM2AncestralDiscreteScheduler", {}),
    "DPM++ Karras": ("DPMSolverMultistepScheduler", {"use_karras_sigmas": True}),
    "DPM++ SDE": ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"}),
    "DPM++ single": ("DPMSolverSinglestepScheduler", {}),
    "DEIS": ("DEISMultistepScheduler", {}),
    "UniPC": ("UniPCMultistepScheduler", {}),
    "LCM": ("LCMScheduler", {}),
    "TCD": ("TCDScheduler", {}),
}


def swap(pair, monkeypatch, name):
    cls, settings = SCHEDULERS[name]
    for pipe in pair:
        monkeypatch.setattr(pipe, "scheduler", getattr(diffusers, cls).from_config(pipe.scheduler.config, **settings))


@pytest.mark.filterwarnings("ignore:__array_wrap__ must accept:DeprecationWarning")  # diffusers calls numpy on tensors
@pytest.mark.parametrize("name", SCHEDULERS)
def test_scheduler(pipes, monkeypatch, name):
    pair = pipes["sd2" if "zero SNR" in name else "sd1"]  # predicting noise has no meaning where there is no signal
    swap(pair, monkeypatch, name)
    same(pair)


def test_fractional_timesteps_reach_the_unet(pipes, monkeypatch):
    ours, stock = pipes["sd1"]
    swap((ours, stock), monkeypatch, "Euler linspace")
    ours.scheduler.set_timesteps(3)
    assert any(float(t) % 1 for t in ours.scheduler.timesteps)
    sample, context = torch.randn(1, 4, 16, 16, generator=noise()), torch.randn(1, 77, 128, generator=noise())
    with torch.no_grad():
        got, want, rounded = (
            unet(sample, t, context).sample
            for unet, t in ((ours.unet, 499.5), (stock.unet, 499.5), (stock.unet, 499.0))
        )
    assert (got - want).norm() < 0.01 * (rounded - want).norm()


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_eta_with_ddim(pipes, monkeypatch, eta):
    swap(pipes["sd1"], monkeypatch, "DDIM")
    image = same(pipes["sd1"], lambda: {"eta": eta})
    assert (image_metrics.psnr(image, run(pipes["sd1"][0], eta=0.0)) > 60) == (eta == 0.0)


def test_timesteps_with_a_scheduler_that_takes_none(pipes, monkeypatch):
    swap(pipes["sd1"], monkeypatch, "DDIM")
    with pytest.raises(ValueError, match="does not support custom"):
        run(pipes["sd1"][0], timesteps=[900, 20])


# ---------------------------------------------------------------------------------------------- tasks


def picture(seed=0):
    return torch.rand(1, 3, 128, 128, generator=noise(seed))


TASKS = {
    "img2img": lambda: {"image": picture(), "strength": 0.7, "num_inference_steps": 4},
    "inpaint": lambda: {
        "image": picture(),
        "mask_image": (torch.arange(128).expand(1, 1, 128, 128) > 64).float(),
        "strength": 1.0,
        "height": 128,
        "width": 128,
        "num_inference_steps": 2,
    },
}


def edit(pipe, **call):
    return pipe(PROMPT, output_type="np", generator=noise(), **call).images


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
@pytest.mark.parametrize("task", TASKS)
def test_task(pipes, bundles, family, task):
    ours = load(bundles(family), task=task)
    image = same((ours, twin(pipes[family][1], type(ours))), TASKS[task], edit)
    assert image.shape == (1, 128, 128, 3)


def test_unknown_task(bundles):
    with pytest.raises(ConfigError, match="txt2img, img2img, inpaint"):
        sdtrt.load(bundles("sd1"), task="upscale")


def test_from_pipe(pipes, bundles):
    made = diffusers.StableDiffusionImg2ImgPipeline.from_pipe(pipes["sd1"][0])
    made.set_progress_bar_config(disable=True)
    assert made.unet is pipes["sd1"][0].unet
    loaded = load(bundles("sd1"), task="img2img")
    assert np.array_equal(edit(made, **TASKS["img2img"]()), edit(loaded, **TASKS["img2img"]()))
    for refused in (made.enable_attention_slicing, lambda: made.enable_freeu(0.9, 0.2, 1.2, 1.4)):
        with pytest.raises(Unsupported):
            refused()


def test_a_pipeline_of_from_pipe_can_be_adapted(bundles):
    bundle = sdtrt.Bundle.open(bundles("sd1", "fake"))
    stock = diffusers.StableDiffusionImg2ImgPipeline
    made = stock.from_pipe(sdtrt.load(bundle))
    assert type(made) is stock
    assert adapter.adapt(made, bundle) is made
    cls = type(made)
    assert issubclass(cls, adapter.EnginePipeline)
    assert (cls.__name__, cls.__mro__[2]) == (stock.__name__, stock)
    with pytest.raises(Unsupported, match="copy its folder"):
        made.save_pretrained("anywhere")
    assert type(adapter.adapt(made, bundle)) is cls, "a second time changes nothing"


def test_parts_are_passed_on(bundles, pipes):
    scheduler = diffusers.DDIMScheduler.from_config(pipes["sd1"][1].scheduler.config, clip_sample=False)
    assert sdtrt.load(bundles("sd1"), scheduler=scheduler).scheduler is scheduler


# ---------------------------------------------------------------------------------------------- limits


@pytest.mark.parametrize(
    "call",
    [
        {"height": 256},
        {"width": 32},
        {"height": 136},
        {"height": 256, "num_images_per_prompt": 5},
        {"latents": torch.zeros(3, 4, 16, 16)},
        {"latents": torch.zeros(1, 4, 32, 32)},
    ],
)
def test_outside_the_profile(pipes, call):
    with pytest.raises(ShapeError) as raised:
        run(pipes["sd1"][0], **call)
    if raised.value.slug != "sizes-differ":
        text = str(raised.value)
        assert "B=1:1:4,H=64:128:192,W=64:128:192" in text
        assert "sdtrt build" in text
        assert "--add-profile" in text


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        ({"cross_attention_kwargs": {"scale": 0.5}}, "attention is compiled"),
        ({"ip_adapter_image": torch.zeros(1, 3, 32, 32)}, "image conditioning"),
        ({"ip_adapter_image_embeds": [torch.zeros(2, 1, 1, 32)]}, "image conditioning"),
    ],
)
@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_arguments_that_engines_cannot_honor(pipes, family, call, reason):
    with pytest.raises(NotImplementedError, match=reason):
        run(pipes[family][0], **call)


@pytest.mark.parametrize(
    "name",
    ["class_labels", "attention_mask", "encoder_attention_mask", "mid_block_additional_residual"],
)
def test_unet_arguments_that_engines_cannot_honor(pipes, name):
    unet = pipes["sd1"][0].unet
    with pytest.raises(NotImplementedError, match=name):
        unet(torch.zeros(1, 4, 16, 16), 1, torch.zeros(1, 77, 32), **{name: torch.zeros(1)})


def test_text_encoder_refuses_a_mask(pipes):
    ids = torch.zeros(1, 77, dtype=torch.int64)
    with pytest.raises(NotImplementedError, match="attention_mask"):
        pipes["sd1"][0].text_encoder(ids, attention_mask=torch.ones_like(ids))


@pytest.mark.parametrize("name", adapter.REFUSED)
def test_refused_methods(pipes, name):
    ours, stock = pipes["sd1"]
    assert hasattr(stock, name), "no longer a method of diffusers: drop it from the table"
    with pytest.raises(NotImplementedError, match=name):
        getattr(ours, name)("anything")


@pytest.mark.parametrize(
    "call",
    [
        lambda p: p.vae.enable_tiling(),
        lambda p: p.enable_freeu(0.9, 0.2, 1.2, 1.4),
        lambda p: p.enable_attention_slicing(),
        lambda p: p.fuse_qkv_projections(),
        lambda p: p.unet.set_attn_processor(None),
        lambda p: p.unet.load_lora_adapter({}),
        lambda p: p.unet.half(),
        lambda p: p.set_ip_adapter_scale(0.5),
        lambda p: p.unload_ip_adapter(),
    ],
)
def test_refused_on_modules(pipes, call):
    with pytest.raises(NotImplementedError, match="cannot do"):
        call(pipes["sd1"][0])


@pytest.mark.parametrize("target", ["cuda", torch.float16, torch.bfloat16])
@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_moving_is_refused(pipes, family, target):
    with pytest.raises(Unsupported, match="engine"):
        pipes[family][0].to(target)


def test_moving_to_where_it_is(pipes):
    ours = pipes["sd1"][0]
    assert ours.to("cpu", torch.float32) is ours
    assert ours.unet.to(memory_format=torch.channels_last) is ours.unet


def test_vae_slicing(pipes, monkeypatch):
    ours = pipes["sd1"][0]
    whole = run(ours, num_images_per_prompt=2)
    sizes = []
    engine = ours.vae.engines["vae_decoder"]
    monkeypatch.setitem(
        ours.vae.engines, "vae_decoder", lambda **t: (sizes.append(len(t["latent_sample"])), engine(**t))[1]
    )
    ours.vae.enable_slicing()
    sliced = run(ours, num_images_per_prompt=2)
    ours.vae.disable_slicing()
    assert sizes == [1, 1]
    assert image_metrics.psnr(sliced, whole) >= 60


# ---------------------------------------------------------------------------------------------- surface


@pytest.mark.parametrize("family", FAMILIES)
def test_surface(pipes, family):
    ours, stock = pipes[family]
    assert isinstance(ours, type(stock))
    assert type(ours).__name__ == type(stock).__name__
    assert inspect.signature(type(ours).__call__) == inspect.signature(type(stock).__call__)
    assert ours.components.keys() == stock.components.keys()
    assert (ours.device, ours.dtype, ours._execution_device) == (stock.device, stock.dtype, stock._execution_device)
    assert ours.vae_scale_factor == stock.vae_scale_factor
    assert {n for n, m in ours.components.items() if isinstance(m, EngineModule)} >= {"unet", "vae", "text_encoder"}
    for name in ("unet", "vae"):
        mine, theirs = (comparable_config(getattr(pipe, name).config) for pipe in (ours, stock))
        assert {k: mine.get(k) for k in theirs} == theirs


def test_config_of_an_older_diffusers(bundle_copy, plain):
    """Real SD 1.5 configs lack keys that today's pipelines read, such as `time_cond_proj_dim`."""
    folder = bundle_copy("sd1", "onnxruntime")
    for part, keys in (("unet", ["time_cond_proj_dim"]), ("vae", ["force_upcast"])):
        file = Path(folder, "pipeline", part, "config.json")
        config = json.loads(file.read_text())
        file.write_text(json.dumps({k: v for k, v in config.items() if k not in keys}))
    pipe = load(folder)
    assert np.array_equal(run(pipe), plain["sd1"])


def test_a_timed_call_knows_every_engine_s_part(bundles):
    pipe = load(bundles("sd1"))
    run(pipe, num_inference_steps=2)  # calls that do not belong to the timed one
    image, timing = timed(pipe, lambda: run(pipe, num_inference_steps=2), steps=2, images=1, height=128, width=128)
    assert np.isfinite(image).all()
    counts = {name: calls.count for name, calls in timing.engines.items()}
    assert counts == {"text_encoder": 2, "unet": 2, "vae_decoder": 1}, "an engine that did not run has no part"
    assert 0 < sum(calls.total_ms for calls in timing.engines.values()) < timing.wall_ms
    assert timing.scheduler
    assert timing.device


# ---------------------------------------------------------------------------------------------- accelerate


class Checker(torch.nn.Module):
    """Finds fault with every image."""

    device, dtype = torch.device("cpu"), torch.float32

    def forward(self, images, clip_input):
        return images, [True] * len(images)


def test_accelerate_keeps_what_is_the_users(bundles, models, plain):
    user = eager_pipeline.eager(models["sd1"])
    checker = Checker()
    user.register_modules(safety_checker=checker, feature_extractor=lambda images, **_: Features())
    scheduler = user.scheduler
    assert sdtrt.accelerate(user, bundles("sd1"), options={"threads": 1}) is user
    assert user.safety_checker is checker
    assert user.scheduler is scheduler
    result = user(PROMPT, num_inference_steps=3, generator=noise(), output_type="np", height=128, width=128)
    assert result.nsfw_content_detected == [True]
    user.safety_checker = None
    assert np.array_equal(run(user), plain["sd1"])


class Features:
    """What a feature extractor returns, as far as the pipeline looks."""

    pixel_values = torch.zeros(1, 3, 8, 8)

    def to(self, device):
        return self


@pytest.mark.parametrize(("of", "bundle"), [("sd2", "sd1"), ("sd1", "sdxl"), ("sdxl", "sd1")])
def test_accelerate_refuses_another_model(pipes, bundles, of, bundle):
    user = twin(pipes[of][1])
    with pytest.raises(BundleError):
        sdtrt.accelerate(user, bundles(bundle))
    assert user.unet is pipes[of][1].unet, "nothing was swapped"


def test_accelerate_refuses_a_loaded_adapter(bundles, models):
    user = eager_pipeline.eager(models["sd1"])
    user.unet._hf_peft_config_loaded = True
    with pytest.raises(Unsupported, match="adapter"):
        sdtrt.accelerate(user, bundles("sd1"))


# ---------------------------------------------------------------------------------------------- threads


@pytest.mark.parametrize("component", ["unet", "text_encoder", "vae_decoder"])
def test_engines_are_thread_safe(bundles, component):
    engine = load_engines(bundles("sd1"))[component]
    sizes = [{"B": 1 + i % 2, "H": 64 * (1 + i % 3), "W": 64, "T": 77} for i in range(16)]
    inputs = [sample_inputs(engine.spec, s, seed=i) for i, s in enumerate(sizes)]
    expected = [engine(**tensors) for tensors in inputs]
    with ThreadPoolExecutor(16) as pool:
        got = list(pool.map(lambda tensors: engine(**tensors), inputs))
    for mine, theirs in zip(got, expected, strict=True):
        for name, tensor in mine.items():
            torch.testing.assert_close(tensor, theirs[name], rtol=1e-5, atol=1e-5)
    assert engine.calls == 32
