"""The component check: at which sizes and inputs a component is compared, and what makes it fail."""

import pytest
import torch
from torch import nn

from sdtrt.errors import ShapeError, VerifyError
from sdtrt.shapes.spec import ComponentSpec, ShapeProfile, TensorSpec
from sdtrt.system import env
from sdtrt.verification import component_check, reference_outputs

SHAPE = ("2B", 4, "H/8", "W/8")
SPEC = ComponentSpec(
    name="unet",
    attribute="unet",
    inputs=(TensorSpec("sample", SHAPE, "float32"), TensorSpec("timestep", ("2B",), "float32")),
    outputs=(TensorSpec("out_sample", SHAPE, "float32"),),
    dtype="float32",
    load=lambda folder: Oracle(),
)
TEXT = ComponentSpec(
    name="text_encoder",
    attribute="text_encoder",
    inputs=(TensorSpec("input_ids", ("B", 77), "int64"),),
    outputs=(),
    dtype="float32",
    load=lambda folder: Oracle(),
)
PROFILES = tuple(map(ShapeProfile.parse, ("B=1:1:2,H=64:64:128,W=64,T=77", "B=1,H=256:256:512,W=256,T=77")))


class Oracle(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(4, 4, 1)

    def forward(self, sample, timestep):
        return (self.layer(sample),)


class Engine:
    """The oracle, except where `wrong(sample)` is true."""

    spec, device = SPEC, torch.device("cpu")

    def __init__(self, oracle, wrong=lambda sample: False, value=0.0):
        self.oracle, self.wrong, self.value, self.batches = oracle, wrong, value, []

    def __call__(self, sample, timestep):
        self.batches.append(len(sample))
        (out,) = self.oracle(sample, timestep)
        return {"out_sample": out + self.value if self.wrong(sample) else out}


@pytest.fixture
def oracle():
    torch.manual_seed(0)
    return Oracle().eval().requires_grad_(False)


def check(engine, oracle, **more):
    return component_check.check_component(engine, reference_outputs.compute(oracle, SPEC, PROFILES, **more), 1e-3)


def test_both_ends_and_the_best_size_of_every_profile_each_once():
    assert [p.label for p in reference_outputs.points(SPEC, PROFILES)] == [
        "B=1,H=64,W=64, guidance off",
        "B=1,H=64,W=64",
        "B=1,H=256,W=256, guidance off",
        "B=1,H=256,W=256",
        "B=2,H=128,W=64",
        "B=1,H=512,W=256",
    ]
    assert [p.label for p in reference_outputs.points(TEXT, PROFILES)] == ["B=1", "B=2"]


def test_the_least_batch_of_a_unet_is_one_sample(oracle):
    engine = Engine(oracle)
    assert check(engine, oracle).passed
    assert engine.batches[:4] == [1, 1, 1, 2]


@pytest.mark.parametrize(
    ("wrong", "where"),
    [
        (lambda sample: sample.shape[2] == 32, "B=1,H=256,W=256"),  # the second profile
        (lambda sample: sample.shape[2] == 64, "B=1,H=512,W=256"),  # its largest size
        (lambda sample: len(sample) == 4, "B=2,H=128,W=64"),
        (lambda sample: len(sample) == 1 and sample.shape[2] == 8, "B=1,H=64,W=64, guidance off"),
    ],
)
@pytest.mark.parametrize("value", [0.1, float("nan"), float("inf")])
def test_an_engine_that_is_wrong_at_one_size_fails(oracle, wrong, where, value):
    found = check(Engine(oracle, wrong, value), oracle)
    assert not found.passed
    assert where in {answer.point.label for answer in found.failing}
    assert found.figures["B=1,H=64,W=64"] < 1e-6
    assert ("NaN or Inf" in str(found)) == (value != 0.1)


def test_an_engine_that_is_wrong_with_one_of_several_inputs_fails(oracle):
    point = reference_outputs.points(SPEC, PROFILES)[1]
    third = point.inputs(SPEC, 2)["sample"]
    found = check(Engine(oracle, lambda sample: torch.equal(sample, third), 1.0), oracle)
    assert [answer[:2] for answer in found.failing] == [(point, 2)]


def test_an_engine_for_guidance_only_is_not_asked_for_less(oracle):
    class Guided(Engine):
        def __call__(self, sample, timestep):
            if len(sample) < 2:
                raise ShapeError("too few")
            return super().__call__(sample, timestep)

    found = check(Guided(oracle), oracle)
    assert found.passed
    assert not any("guidance off" in name for name in found.figures)


def test_a_checkpoint_that_is_broken_is_not_laid_on_the_engine(oracle):
    oracle.layer.bias[0] = float("nan")
    with pytest.raises(VerifyError) as caught:
        check(Engine(oracle), oracle)
    assert caught.value.slug == "verify-eager"


def test_inputs_of_a_real_image_are_compared_too(oracle):
    call = {"sample": torch.full((2, 4, 8, 8), 9.0), "timestep": torch.tensor(501), "encoder_hidden_states": None}
    engine = Engine(oracle, lambda sample: sample.max() > 8, float("inf"))
    found = check(engine, oracle, recorded_inputs={"seed 0, call 3": call, "seed 1": {"sample": call["sample"]}})
    assert [answer.point.label for answer in found.failing] == ["an image, seed 0, call 3"]
    assert str(found) == "NaN or Inf at an image, seed 0, call 3"


@pytest.mark.parametrize("short", ["time", "memory"])
def test_a_largest_size_that_would_take_too_much_is_left_out_with_a_note(oracle, monkeypatch, short):
    if short == "time":
        monkeypatch.setattr(reference_outputs, "LARGEST_S", 0.0)
    monkeypatch.setattr(env, "free_memory_bytes", lambda: 1000 if short == "memory" else None)
    found = check(Engine(oracle), oracle)
    assert list(found.figures)[-1] == "B=1,H=256,W=256"
    assert [note.partition(": it would take")[0] for note in found.notes] == [
        "not compared at B=2,H=128,W=64",
        "not compared at B=1,H=512,W=256",
    ]
    assert "GB of memory" in found.notes[0] if short == "memory" else " s" in found.notes[0]
    assert len(check(Engine(oracle), oracle, full=True).figures) == 6


def test_a_size_that_takes_long_is_compared_once_with_a_note(oracle, monkeypatch):
    monkeypatch.setattr(reference_outputs, "REPEAT_S", 0.0)
    engine = Engine(oracle)
    found = check(engine, oracle)
    assert len(engine.batches) == len(found.figures) == 6
    assert "compared at B=1,H=64,W=64 with 1 of 3 inputs" in "\n".join(found.notes)


def test_attention_scores_count_as_memory():
    from sdtrt.verification.eager_cost import EagerCost

    attention = nn.Identity()
    attention.heads = 8
    cost = EagerCost()
    with cost.measuring(attention, {"B": 1}):
        attention(torch.zeros(2, 100, 16))
        attention(torch.zeros(2, 16, 10, 10))
    assert cost.output_bytes == 2 * (2 * 8 * 100 * 100 * 4)


def test_free_memory_is_less_than_there_is():
    assert 0 < env.free_memory_bytes() <= env.memory_bytes()
