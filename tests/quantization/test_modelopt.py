"""The real ModelOpt on one image of one step: what it measures, on which text, and that its ranges are ours."""

import copy

import pytest
import tiny_loras
import torch
from torch import nn

from sdtrt import config, lora
from sdtrt.export import quantized_layers
from sdtrt.models import family_of
from sdtrt.pipelines import eager_pipeline
from sdtrt.quantization import modelopt
from sdtrt.quantization.calibration_images import CalibrationImages

pytest.importorskip("modelopt", reason="nvidia-modelopt is not installed")

KEPT = config.Calibration().exclude
CROSS = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k"
PROMPT = "a red fox"

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def folder(models):
    return models["sd1"]


@pytest.fixture(scope="module")
def unet(folder):
    return eager_pipeline.eager(folder).unet


@pytest.fixture
def calibrate(folder, unet):
    """calibrate(scheme, algorithm) as a build does it."""

    def run(scheme, algorithm="max", loras=()):
        chosen = config.Calibration(prompts=[PROMPT], images=1, steps=1, algorithm=algorithm)
        return modelopt.calibrate(unet, scheme, CalibrationImages(chosen, folder, {"H": 64, "W": 64}, loras))

    return run


@pytest.mark.parametrize("scheme", ["int8", "fp8"])
def test_modelopt_measures_the_layers_that_are_meant(calibrate, unet, scheme):
    kinds = (nn.Linear, nn.Conv2d) if scheme == "int8" else (nn.Linear,)
    meant = {n for n, m in unet.named_modules() if isinstance(m, kinds) and not any(k in n for k in KEPT)}
    assert set(calibrate(scheme)) == meant
    assert not quantized_layers.layers(unet)  # ModelOpt worked on a copy
    assert type(unet.conv_in) is nn.Conv2d


def test_modelopt_scales_weights_as_the_layers_do(calibrate, unet):
    """Its ranges of weights are not taken over: they follow from the weights, smoothed or not."""
    scales = calibrate("int8", "smoothquant")
    import modelopt.torch.quantization as mtq

    name = next(n for n, s in scales.items() if s.smooth is not None)
    layer = nn.ModuleDict({"x": copy.deepcopy(unet.get_submodule(name))})
    quantized_layers.insert(layer, {"x": scales[name]}, "int8")
    smoothed = unet.get_submodule(name).weight / torch.tensor(scales[name].smooth)
    theirs = mtq.quantize(
        nn.Sequential(nn.Linear(smoothed.shape[1], smoothed.shape[0])).requires_grad_(False),
        modelopt.recipe("int8", config.Calibration(exclude=())),
        lambda m: (m[0].weight.copy_(smoothed), m(torch.ones(1, smoothed.shape[1]))),
    )[0]
    assert torch.allclose(layer["x"].weight_scale * 127, theirs.weight_quantizer.amax.flatten(), rtol=1e-5)


def test_a_lora_of_the_text_encoder_is_in_the_text_that_calibrates(calibrate, folder, tmp_path):
    """Cross-attention reads the text: its range is the largest magnitude that diffusers gives it."""
    file = tiny_loras.make(tmp_path / "text.safetensors", folder, 1, ("text_encoder",))
    specs = family_of(folder).components(folder, "fp32")
    loras = lora.baked([config.LoraEntry(path=str(file), scale=8)], specs, folder)

    def largest(*chosen):
        with torch.inference_mode():
            text = eager_pipeline.eager(folder, *chosen).encode_prompt(PROMPT, "cpu", 1, True)
        return max(float(embeds.abs().max()) for embeds in text)

    assert calibrate("fp8", loras=loras)[CROSS].input_amax == pytest.approx(largest(loras), rel=1e-4)
    assert calibrate("fp8")[CROSS].input_amax == pytest.approx(largest(), rel=1e-4)
    assert largest(loras) != pytest.approx(largest(), rel=1e-2)
