"""Quantized layers in PyTorch, what a build asks of ModelOpt, and what it records."""

import copy
import json

import pytest
import small_checkpoint
import tiny_loras
import torch
from torch import nn
from trt import bindings, use

from sdtrt import config, engines
from sdtrt.builder import build, planning
from sdtrt.errors import BackendUnavailable, BuildError, ConfigError
from sdtrt.export import quantized_layers
from sdtrt.quantization import activation_ranges, modelopt
from sdtrt.quantization.method import method_of
from sdtrt.system import env, nvml

KEPT = config.Calibration().exclude
PROFILE = "B=1:1:2,H=64,W=64"


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(3, 8, 3)
        self.second = nn.Linear(8, 4)

    def forward(self, x):
        return self.second(self.first(x).mean(dim=(2, 3)))


@pytest.fixture
def net():
    return Net().eval().requires_grad_(False)


# ------------------------------------------------------------------------------------ layers


@pytest.mark.parametrize(("scheme", "bound"), [("int8", 127.0), ("fp8", 448.0)])
def test_a_layer_computes_on_values_that_its_scheme_can_hold(net, scheme, bound):
    x, before = torch.randn(5, 8), copy.deepcopy(net.second)
    amax = float(x.abs().max())
    quantized_layers.insert(net, {"second": quantized_layers.Scales(amax)}, scheme)

    def held(values, scale):
        steps = values / scale
        return (steps.round() if scheme == "int8" else steps.to(torch.float8_e4m3fn).float()) * scale

    rows = before.weight.abs().amax(dim=1, keepdim=True)
    weight = held(before.weight, (rows if scheme == "int8" else rows.max()) / bound)
    expected = held(x, amax / bound) @ weight.T + before.bias
    assert torch.allclose(net.second(x), expected, rtol=1e-6, atol=1e-6)
    assert not torch.equal(net.second(x), before(x))


@pytest.mark.parametrize("name", ["first", "second"])
def test_smoothing_alone_changes_nothing_but_rounding(net, name):
    x = torch.randn(2, 3, 6, 6)
    before, channels = net(x), getattr(net, name).weight.shape[1]
    quantized_layers.insert(
        net, {name: quantized_layers.Scales(40.0, tuple(0.5 + 0.25 * i for i in range(channels)))}, "int8"
    )
    assert torch.allclose(net(x), before, atol=0.2)
    assert not torch.allclose(net(x), before, atol=1e-5)


def test_parameters_keep_their_names(net):
    before = set(net.state_dict())
    quantized_layers.insert(net, {"first": quantized_layers.Scales(1.0)}, "int8")
    assert before <= set(net.state_dict())
    assert set(quantized_layers.layers(net)) == {"first"}


def test_a_scale_is_never_below_what_half_precision_holds(net):
    half = net.half()
    half.second.weight[0] = 0
    quantized_layers.insert(half, {"second": quantized_layers.Scales(1e-6)}, "int8")
    assert half.second.input_scale == quantized_layers.LEAST_SCALE
    assert float(half.second.weight_scale.min()) == quantized_layers.LEAST_SCALE
    assert half.second(torch.randn(2, 8).half()).isfinite().all()


# ------------------------------------------------------------------------------------ what is asked of ModelOpt


def test_without_modelopt_the_error_has_the_command(monkeypatch, models, tmp_path):
    monkeypatch.setattr(env, "importable", lambda module: module != "modelopt")
    with pytest.raises(BackendUnavailable) as caught:
        build.build(models["sd1"], tmp_path / "out", precision="int8")
    assert caught.value.slug == "modelopt-missing"
    assert "pip install 'sdtrt[quantize]'" in caught.value.hint


def test_fp8_needs_an_opset_that_has_it(with_ranges, models, tmp_path):
    with pytest.raises(ConfigError) as caught:
        build.build(models["sd1"], tmp_path / "out", precision="fp8", opset=18)
    assert caught.value.slug == "config-opset"


@pytest.mark.parametrize(
    ("backend", "precision", "method"),
    [
        ("tensorrt", "fp16", None),
        ("tensorrt", "int8", modelopt),
        ("inductor", "fp8", activation_ranges),
        ("inductor", "int8", modelopt),
    ],
)
def test_a_backend_that_quantizes_by_itself_needs_ranges_only(backend, precision, method):
    assert method_of(config.load(model="m", precision=precision), engines.load(backend)) is method


def test_quantized_layers_and_refits_exclude_each_other():
    chosen = config.load(model="m", backend="tensorrt", precision="fp8", options={"refit": "all"})
    with pytest.raises(ConfigError) as caught:
        modelopt.check(chosen, engines.load("tensorrt"))
    assert "lora:" in caught.value.hint


@pytest.mark.parametrize("backend", ["eager", "fake"])
def test_a_backend_that_reads_no_onnx_is_refused(with_ranges, models, tmp_path, backend):
    """It would save the layers as they were, in silence."""
    with pytest.raises(ConfigError) as caught:
        build.build(models["sd1"], tmp_path / "out", precision="int8", backend=backend)
    assert caught.value.slug == "config-precision"


def test_the_recipe_names_kinds_of_layers_and_what_is_kept():
    entries = modelopt.recipe("fp8", config.Calibration(exclude=("proj_out",)))["quant_cfg"]
    assert entries[0] == {"quantizer_name": "*", "enable": False}
    assert {e["parent_class"] for e in entries if "parent_class" in e} == {"nn.Linear"}
    assert entries[-1] == {"quantizer_name": "*proj_out*", "enable": False}
    entries = modelopt.recipe("int8", config.Calibration())["quant_cfg"]
    assert {e["parent_class"] for e in entries if "parent_class" in e} == {"nn.Linear", "nn.Conv2d"}


@pytest.mark.parametrize(
    ("precision", "gpu", "refused"),
    [
        ("fp8", ("NVIDIA A10G", "8.6"), True),
        ("fp8", ("Tesla T4", "7.5"), True),
        ("fp8", ("NVIDIA L4", "8.9"), False),
        ("fp8", ("NVIDIA B200", "10.0"), False),
        ("fp8", None, False),
        ("int8", ("Tesla T4", "7.5"), False),
    ],
)
def test_fp8_needs_a_gpu_that_has_it_where_it_is_known(with_ranges, precision, gpu, refused):
    chosen = config.load(model="m", backend="tensorrt", precision=precision)
    if not refused:
        modelopt.check(chosen, engines.load("tensorrt"), gpu)
        return
    with pytest.raises(BackendUnavailable) as caught:
        modelopt.check(chosen, engines.load("tensorrt"), gpu)
    assert caught.value.slug == "fp8-gpu"
    assert caught.value.received == f"{gpu[0]}, compute capability {gpu[1]}"
    assert "8.9" in caught.value.expected


@pytest.mark.parametrize(("sm", "refused"), [("8.6", True), ("8.9", False)])
def test_a_build_asks_the_gpu_that_tensorrt_will_run_on(
    with_ranges, checkpoint, cache, tmp_path, monkeypatch, sm, refused
):
    monkeypatch.setenv("TENSORRT_DOUBLE_GPU", f"Double GPU:{sm}")
    try:
        with use.tensorrt(bindings.NEWEST, cache):
            plan = asked(checkpoint, backend="tensorrt", precision="fp8")
            if not refused:
                assert planning.plan_build(plan, tmp_path / "out").steps
                return
            with pytest.raises(BackendUnavailable, match=r"Double GPU, compute capability 8\.6"):
                planning.plan_build(plan, tmp_path / "out")
    except bindings.Unreachable as exc:
        pytest.skip(str(exc))


def test_onnxruntime_asks_the_gpu_only_where_it_runs_on_one(monkeypatch):
    backend = engines.load("onnxruntime")
    monkeypatch.setattr(nvml, "gpus", lambda: (nvml.Gpu("Tesla T4", "7.5", 16 << 30, "580"),))
    assert backend.gpu(backend.options()) is None
    assert backend.gpu(backend.options(providers=["CUDAExecutionProvider"])) == ("Tesla T4", "7.5")
    monkeypatch.setattr(nvml, "gpus", tuple)
    assert backend.gpu(backend.options(providers=["CUDAExecutionProvider"])) is None


# ------------------------------------------------------------------------------------ what a build does with it


@pytest.fixture(scope="module")
def with_ranges():
    """Builds that need no ModelOpt: every layer that its recipe names has the range 4."""
    monkeypatch = pytest.MonkeyPatch()
    importable = env.importable
    monkeypatch.setattr(env, "importable", lambda module: module == "modelopt" or importable(module))

    def calibrate(unet, scheme, images):
        kinds = (nn.Linear, nn.Conv2d) if scheme == "int8" else (nn.Linear,)
        names = [n for n, m in unet.named_modules() if isinstance(m, kinds)]
        return {n: quantized_layers.Scales(4.0) for n in names if not any(k in n for k in images.settings.exclude)}

    monkeypatch.setattr(modelopt, "calibrate", calibrate)
    yield
    monkeypatch.undo()


@pytest.fixture(scope="module")
def checkpoint(models, tmp_path_factory):
    return small_checkpoint.make(models["sd2"], tmp_path_factory.mktemp("quantized") / "model")


def asked(checkpoint, **settings):
    chosen = {"precision": "int8", "components": ["unet"]} | settings
    return config.load(model=str(checkpoint), profiles=[PROFILE], profile_runs=1, **chosen)


@pytest.fixture(scope="module")
def built(with_ranges, checkpoint):
    return build.build(checkpoint, checkpoint.with_name("out"), config=asked(checkpoint))


def to_build(config, bundle):
    return {s.spec.name: s.reasons[0] for s in planning.plan_build(config, bundle.path).steps if s.action == "build"}


def test_a_build_records_what_was_quantized(built):
    unet = built.manifest.components["unet"]
    assert (unet.quantization.scheme, unet.quantization.calibration["steps"]) == ("int8", 20)
    assert unet.quantization.layers["down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"] == 4.0
    assert not any(k in name for name in unet.quantization.layers for k in KEPT)
    assert len(unet.quantization.digest) == 64
    assert unet.key["precision"] == "int8"
    assert "quantization" in unet.key
    assert max(unet.parity.values()) > 1e-3  # against the layers as they were
    assert json.loads((built.path / "manifest.json").read_text())["components"]["unet"]["quantization"]


def test_all_but_the_unet_is_fp16(built, checkpoint):
    every = planning.plan_build(asked(checkpoint, components=None), built.path).steps
    keys = {s.spec.name: s.key for s in every}
    assert {n: k["precision"] for n, k in keys.items() if n != "unet"} == dict.fromkeys(
        ("text_encoder", "vae_decoder", "vae_encoder"), "fp16"
    )
    half = {
        s.spec.name: s.key
        for s in planning.plan_build(asked(checkpoint, precision="fp16", components=None), built.path).steps
    }
    assert {n for n in keys if keys[n] != half[n]} == {"unet"}


def test_another_calibration_builds_the_unet_anew_and_nothing_else(built, checkpoint):
    other = asked(checkpoint, calibration={"steps": 30})
    assert [(n, r.split(":")[0]) for n, r in to_build(other, built).items()] == [("unet", "quantization")]


def test_the_unet_depends_on_a_lora_of_the_text_encoder_that_calibrates_it(built, checkpoint, tmp_path):
    """One that leaves the U-Net itself as it is."""
    file = tiny_loras.make(tmp_path / "text.safetensors", checkpoint, 1, ("text_encoder",))
    other = to_build(asked(checkpoint, lora=[f"{file}:0.5"]), built)
    assert [(n, r.split(":")[0]) for n, r in other.items()] == [("unet", "quantization")]
    assert other["unet"].endswith(" x 0.5")


def test_a_digest_tells_ranges_apart():
    assert modelopt.digest({"a": quantized_layers.Scales(1.0)}) != modelopt.digest({"a": quantized_layers.Scales(1.5)})
    assert modelopt.digest({"a": quantized_layers.Scales(1.0)}) != modelopt.digest(
        {"a": quantized_layers.Scales(1.0, (1.0,))}
    )


def test_a_range_that_is_no_number_is_an_error():
    class Quantizer:
        is_enabled, amax, pre_quant_scale = True, torch.tensor(float("nan")), None

    layer = nn.Linear(2, 2)
    layer.input_quantizer = Quantizer()
    with pytest.raises(BuildError) as caught:
        modelopt.read(nn.ModuleDict({"bad": layer}))
    assert "bad" in caught.value.message
