"""What a package computes anew in a call, and what it keeps: with plain functions in the place of compiled code."""

import pytest
import torch

from sdtrt.engines.backends.inductor.runner import Part, Runner


@pytest.fixture
def calls():
    return []


@pytest.fixture
def runner(calls):
    """x + 2 * prompt, of which the product is the prompt's part."""

    def encode(prompt):
        calls.append(len(prompt))
        return (prompt * 2,)

    step = Part(lambda x, handed: (x + handed,), ("x", "handed"))
    return Runner(step, (Part(encode, ("prompt",)), ("prompt",), ("handed",)), {}, torch.device("cpu"), None)


def filled(asked):
    return {name: torch.cat([tensor, tensor[-1:]]) for name, tensor in asked.items()}


def test_a_prompt_is_encoded_once_also_when_its_rows_are_filled_up(runner, calls):
    asked = {"x": torch.zeros(1, 3), "prompt": torch.ones(1, 3)}
    for _ in range(3):
        (made,) = runner(filled(asked), asked)
        assert torch.equal(made, torch.full((2, 3), 2.0))
    assert calls == [2]


def test_a_prompt_that_changed_in_place_is_encoded_again(runner, calls):
    asked = {"x": torch.zeros(1, 3), "prompt": torch.ones(1, 3)}
    runner(asked, asked)
    asked["prompt"] += 1
    (made,) = runner(asked, asked)
    assert torch.equal(made, torch.full((1, 3), 4.0))
    assert len(calls) == 2


def test_new_weights_void_what_was_encoded(runner, calls):
    asked = {"x": torch.zeros(1, 3), "prompt": torch.ones(1, 3)}
    runner(asked, asked)
    runner.forget()
    runner(asked, asked)
    assert len(calls) == 2
