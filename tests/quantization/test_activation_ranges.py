"""FP8 without ModelOpt: ranges, errors of layers, what a build does with them, and the rounded graph itself."""

import copy
import math

import pytest
import small_checkpoint
import torch
import traced_graphs
from torch import nn

from sdtrt import config, engines
from sdtrt.builder import build as builder
from sdtrt.builder import planning
from sdtrt.engines.backends.inductor.build import _added
from sdtrt.engines.backends.inductor.passes import fp8
from sdtrt.errors import BackendUnavailable, ConfigError, EngineError
from sdtrt.quantization import activation_ranges
from sdtrt.quantization.calibration_images import CalibrationImages

PROFILE = "B=1:1:2,H=64,W=64"
LIMIT = 0.02
pytestmark = pytest.mark.usefixtures("one_thread")


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(4, 16, 3, bias=False)
        self.second = nn.Linear(16, 32)

    def forward(self, x):
        return self.second(self.first(x).flatten(2).transpose(1, 2))


@pytest.fixture
def net():
    return Net().eval().requires_grad_(False)


# ------------------------------------------------------------------------------------ ranges and errors


def test_the_range_is_the_largest_input_of_all_calls(net):
    small, large = torch.randn(1, 4, 5, 5), 3 * torch.randn(1, 4, 5, 5)
    with activation_ranges.record_input_ranges(net) as ranges:
        for x in (small, large, small):
            net(x)
    assert ranges["first"] == float(large.abs().max())
    assert ranges["second"] == float(net.first(large).abs().max())
    net(100 * large)
    assert ranges["first"] == float(large.abs().max()), "nothing is watched any more"


def test_the_worst_layers_are_kept_until_the_rest_adds_up_to_little():
    errors = {"a": 0.1, "b": 0.4, "c": 0.2, "d": 0.4}
    assert activation_ranges.worst_layers(errors, None) == ()
    assert activation_ranges.worst_layers(errors, 0.7) == ()
    assert activation_ranges.worst_layers(errors, 0.5) == ("b",)
    assert activation_ranges.worst_layers(errors, 0.25) == ("b", "d")
    assert activation_ranges.worst_layers(errors, 0.01) == ("b", "d", "c", "a")


# ------------------------------------------------------------------------------------ what a build does with it


@pytest.fixture(scope="module")
def checkpoint(models, tmp_path_factory):
    return small_checkpoint.make(models["sd2"], tmp_path_factory.mktemp("fp8") / "model", levels=1)


def asked(checkpoint, **settings):
    few = {"images": 1, "steps": 1, "max_error": LIMIT}
    chosen = {"backend": "inductor", "precision": "fp8", "components": ["unet"], "calibration": few} | settings
    return config.load(model=str(checkpoint), profiles=[PROFILE], profile_runs=1, **chosen)


def images(chosen, checkpoint):
    return CalibrationImages(chosen.calibration, checkpoint, {"H": 64, "W": 64})


@pytest.fixture(scope="module")
def built(checkpoint):
    """(bundle, what the backend was given): the fake backend as one that rounds by itself."""
    patch, fake, given = pytest.MonkeyPatch(), engines.load("fake"), []
    build = type(fake).build
    patch.setattr(fake, "native_precisions", frozenset({"fp8"}), raising=False)
    patch.setattr(fake, "input_format", "module", raising=False)

    def watched(source, options, folder):
        given.append((source, {n: t.clone() for n, t in source.module.state_dict().items()}))
        build(fake, source, options, folder)

    patch.setattr(fake, "build", watched, raising=False)
    yield builder.build(checkpoint, checkpoint.with_name("out"), config=asked(checkpoint, backend="fake")), given[0]
    patch.undo()


def test_the_backend_gets_the_ranges_and_the_manifest_has_all_figures(built):
    bundle, (source, _) = built
    record = bundle.manifest.components["unet"].quantization
    assert record.by.startswith("sdtrt ")
    assert source.ranges == record.layers
    assert record.kept == activation_ranges.worst_layers(record.errors, LIMIT) != ()
    assert record.errors.keys() == record.layers.keys() | set(record.kept)
    assert not record.layers.keys() & set(record.kept)
    assert 0 < math.hypot(*(record.errors[name] for name in record.layers)) <= LIMIT


def test_the_terminal_tells_what_rounding_costs_and_which_layers_are_kept(built, capsys):
    from sdtrt.cli.commands.build import show_bundle

    show_bundle(built[0])
    record = built[0].manifest.components["unet"].quantization
    told = " ".join(capsys.readouterr().out.split())
    assert f"{len(record.layers)} layers in fp8, which put the output off by 0.0" in told
    assert (
        f"{len(record.kept)} more stay fp16, the worst {record.kept[0]} ({record.errors[record.kept[0]]:.2g})" in told
    )


def test_the_module_is_left_as_it_was(built, checkpoint):
    source, state = built[1]
    fresh = source.spec.load(checkpoint).state_dict()
    assert all(torch.equal(t, state[n]) and t.dtype == state[n].dtype for n, t in fresh.items())


def test_ranges_do_not_change_from_build_to_build(built, checkpoint):
    source, chosen = built[1][0], asked(checkpoint, backend="fake")
    again = activation_ranges.quantize(source.spec.load(checkpoint), chosen, images(chosen, checkpoint))
    assert again.digest == built[0].manifest.components["unet"].quantization.digest


@pytest.mark.parametrize("sm", ["8.0", "8.6"])
def test_a_gpu_without_fp8_is_refused_before_anything_is_made(checkpoint, tmp_path, monkeypatch, sm):
    monkeypatch.setattr(engines.load("inductor"), "gpu", lambda options: ("NVIDIA A100", sm))
    with pytest.raises(BackendUnavailable) as caught:
        planning.plan_build(asked(checkpoint), tmp_path / "out")
    assert caught.value.slug == "fp8-gpu"


@pytest.mark.parametrize(
    ("settings", "words"),
    [({"calibration": {"algorithm": "smoothquant"}}, "smoothquant"), ({"precision": "int8"}, "quantized layers")],
)
def test_what_only_modelopt_can_do_is_refused(checkpoint, tmp_path, settings, words):
    with pytest.raises(ConfigError, match=words):
        planning.plan_build(asked(checkpoint, **settings), tmp_path / "out")


@pytest.mark.parametrize(
    ("layer", "on_gpu", "on_cpu"),
    [
        (nn.Linear(32, 64), True, True),
        (nn.Linear(32, 4), False, False),
        (nn.Conv2d(640, 64, 3, padding=1), True, False),
        (nn.Conv2d(640, 64, 3, padding=1, stride=2), False, False),
        (nn.Conv2d(320, 64, 3, padding=1), True, False),
        (nn.Conv2d(32, 64, 3, padding=1), False, False),
        (nn.Conv2d(640, 64, 1), False, False),
    ],
    ids=str,
)
def test_only_layers_that_are_rounded_are_measured_and_kept(monkeypatch, layer, on_gpu, on_cpu):
    inductor = engines.load("inductor")
    monkeypatch.setattr(
        "sdtrt.engines.backends.inductor.engine.device_of", lambda options: torch.device(options.device)
    )
    monkeypatch.setattr("sdtrt.engines.backends.inductor.engine.is_hopper", lambda device: device.type == "cuda")
    assert inductor.quantizes_layer(layer, inductor.options(device="cpu")) == on_cpu
    assert inductor.quantizes_layer(layer, inductor.options(device="cuda")) == on_gpu
    linear = isinstance(layer, nn.Linear)
    assert inductor.quantizes_layer(layer, inductor.options(device="cuda"), ("fp8",)) == (on_gpu and linear)


def test_ranges_are_those_of_layers_that_the_backend_rounds(checkpoint, built):
    unet = built[1][0].spec.load(checkpoint).inner
    chosen = asked(checkpoint)
    ranges, errors = activation_ranges.measure_ranges(unet, chosen, images(chosen, checkpoint))
    layers = dict(unet.named_modules())
    assert ranges.keys() == errors.keys()
    assert len(ranges) > 5
    assert all(isinstance(layers[name], nn.Linear) for name in ranges)


# ------------------------------------------------------------------------------------ the rounded graph


def test_calibrated_layers_are_rounded_and_others_are_exact():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(32, 64), nn.SiLU(), nn.Linear(64, 16)).requires_grad_(False)
    x = torch.randn(2, 64, 32)
    exact = net(x)

    def rounded(*layers):
        graph = traced_graphs.traced(copy.deepcopy(net), input=x)
        ranges = {"0": float(x.abs().max()), "2": float(net[:2](x).abs().max())}
        changed = traced_graphs.apply(fp8, graph, {n: ranges[n] for n in layers})
        (out,) = traced_graphs.run(graph, {"input": x})
        return changed, float((out - exact).norm() / exact.norm())

    assert rounded() == (0, pytest.approx(0, abs=1e-6))
    changed, error = rounded("0", "2")
    assert changed == 2
    assert 0.005 < error < 0.1
    assert 0.005 < rounded("2")[1] < error


class Rows(nn.Module):
    """The pixels of an image as rows of a linear layer, as at the entrance of a transformer."""

    def __init__(self):
        super().__init__()
        self.proj = nn.Linear(32, 64)

    def forward(self, x):
        return self.proj(x.permute(0, 2, 3, 1).reshape(x.shape[0], -1, x.shape[1]))


def test_the_pixels_of_a_single_image_are_rounded_too(tmp_path):
    """Its channels lie apart, and rounding leaves them so unless it is told."""
    net = Rows().requires_grad_(False)
    x = torch.randn(1, 32, 8, 8)
    graph = traced_graphs.traced(net, x=x)
    assert traced_graphs.apply(fp8, graph, {"proj": float(x.abs().max())}) == 1
    _, run = traced_graphs.planned(graph, {"x": x}, tmp_path / "rows.inductor")
    (out,) = run()
    exact = net(x)
    assert float((out - exact).norm() / exact.norm()) < 0.1


def test_weights_of_two_sizes_that_have_one_name_are_both_kept():
    first, scale = torch.ones(4).to(torch.float8_e4m3fn), torch.tensor(0.5)
    weights = {}
    assert _added(weights, {"a": first, "view_factor": scale}, "2rows", {"a"}) == {
        "a": "a",
        "view_factor": "view_factor",
    }
    names = _added(weights, {"a": first.clone(), "view_factor": 2 * scale}, "16rows", {"a"})
    assert names == {"a": "a", "view_factor": "view_factor.16rows"}
    assert weights.keys() == {"a", "view_factor", "view_factor.16rows"}
    assert float(weights["view_factor.16rows"]) == 1.0
    with pytest.raises(EngineError) as caught:
        _added(weights, {"a": 2 * scale}, "16rows", {"a"})
    assert caught.value.slug == "inductor-weights"
