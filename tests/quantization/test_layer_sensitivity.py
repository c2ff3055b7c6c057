"""How far each layer that is rounded to FP8 puts an output off: estimated for all at once, true for each in turn."""

import copy
import math

import pytest
import small_checkpoint
import torch
from scipy.stats import spearmanr
from torch import nn

from sdtrt import models as families
from sdtrt.quantization import activation_ranges, layer_sensitivity

pytestmark = pytest.mark.usefixtures("one_thread")


def outputs(module, calls):
    with torch.no_grad():
        return torch.cat([module(*args, **kwargs)[0].double() for args, kwargs in calls])


def true_error(module, calls, ranges, names):
    """‖rounded - exact‖ / ‖exact‖ with these layers replaced by rounded ones."""
    rounded = copy.deepcopy(module)
    layers = dict(rounded.named_modules())
    for name in names:
        layers[name].register_forward_hook(
            lambda layer, inputs, made, name=name: (
                made + layer_sensitivity.rounding_error(layer, inputs[0], made, ranges[name])
            )
        )
    exact = outputs(module, calls)
    return float((outputs(rounded, calls) - exact).norm() / exact.norm())


@pytest.fixture(scope="module")
def unet(models, tmp_path_factory):
    folder = small_checkpoint.make(models["sd2"], tmp_path_factory.mktemp("sensitivity") / "model", levels=1)
    torch.manual_seed(0)
    module = families.family_of(folder).components(folder, "fp32")["unet"].load(folder).inner
    return module.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def calls(unet):
    width = unet.config.cross_attention_dim
    torch.manual_seed(0)
    given = [(torch.randn(2, 4, 8, 8), torch.tensor(t), torch.randn(2, 77, width)) for t in (900, 500, 100)]
    return [((sample, t), {"encoder_hidden_states": prompt}) for sample, t, prompt in given]


@pytest.fixture(scope="module")
def measured(unet, calls):
    """(ranges, errors) of all layers."""
    with activation_ranges.record_input_ranges(unet) as ranges:
        outputs(unet, calls)
    return ranges, layer_sensitivity.measure(unet, ranges, calls)


def test_one_pass_ranks_layers_as_rounding_each_in_turn_does(unet, calls, measured):
    ranges, errors = measured
    true = {name: true_error(unet, calls, ranges, [name]) for name in ranges}
    assert len(true) > 20
    assert spearmanr([true[n] for n in ranges], [errors[n] for n in ranges]).statistic > 0.9


def test_errors_of_all_layers_add_up_by_their_squares(unet, calls, measured):
    ranges, errors = measured
    assert math.hypot(*errors.values()) == pytest.approx(true_error(unet, calls, ranges, ranges), rel=0.3)


def test_saving_memory_changes_no_error(unet, calls, measured):
    ranges, errors = measured
    sparing = copy.deepcopy(unet)
    sparing.enable_gradient_checkpointing()
    assert layer_sensitivity.measure(sparing, ranges, calls) == pytest.approx(errors, rel=1e-3)


def test_the_module_computes_as_before_afterwards(unet, calls, measured):
    ranges, _ = measured
    before = outputs(unet, calls)
    layer_sensitivity.measure(unet, ranges, calls[:1])
    assert torch.equal(outputs(unet, calls), before)


def test_the_error_of_a_layer_is_that_of_rounding_input_and_weight():
    torch.manual_seed(0)
    layer, given = nn.Linear(16, 32).requires_grad_(False), torch.randn(9, 16)
    held = (given / (2 / 448)).clamp(-448, 448).to(torch.float8_e4m3fn).float() * (2 / 448)
    unit = layer.weight.abs().amax() / 448
    weight = (layer.weight / unit).to(torch.float8_e4m3fn).float() * unit
    exact = layer(given)
    expected = nn.functional.linear(held, weight, layer.bias) - exact
    assert torch.allclose(layer_sensitivity.rounding_error(layer, given, exact, 2.0), expected, atol=1e-5)
    assert 0.01 < float(expected.norm() / exact.norm()) < 0.2


def test_recorded_calls_are_copies_from_first_to_last():
    module, x = nn.Identity(), torch.zeros(1)
    with layer_sensitivity.record_calls(module) as calls:
        for _ in range(10):
            x += 1
            module(x)
    chosen = [float(args[0]) for args, _ in layer_sensitivity.select_calls(calls)]
    assert chosen == [1, 4, 7, 10]
    assert [float(args[0]) for args, _ in layer_sensitivity.select_calls(calls[:2])] == [1, 2]
    assert len(layer_sensitivity.select_calls(calls[:1])) == 1
