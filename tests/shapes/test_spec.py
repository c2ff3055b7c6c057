"""Shapes: what is parsed can be printed, what resolves fits, what does not fit is refused with both sides."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdtrt.errors import ConfigError, ShapeError
from sdtrt.shapes.profile_selection import fits
from sdtrt.shapes.spec import ComponentSpec, Expr, ShapeProfile, TensorSpec, step

SAMPLE = TensorSpec("sample", ("2B", 4, "H/8", "W/8"), "float32")
CONTEXT = TensorSpec("encoder_hidden_states", ("2B", "T", 16), "float32")
OUT = TensorSpec("out_sample", ("2B", 4, "H/8", "W/8"), "float32")


def component(inputs=(SAMPLE, CONTEXT), outputs=(OUT,), align=64):
    return ComponentSpec("unet", "unet", inputs, outputs, "float32", load=lambda folder: None, align=align)


ranges = st.lists(st.integers(1, 96), min_size=3, max_size=3).map(sorted).map(tuple)


@st.composite
def profiles(draw):
    eight = draw(ranges), draw(ranges)
    return ShapeProfile(
        {
            "B": draw(ranges),
            "H": tuple(8 * v for v in eight[0]),
            "W": tuple(8 * v for v in eight[1]),
            "T": (77, 77, 77),
        }
    )


@given(profiles())
def test_a_profile_reads_what_it_prints(profile):
    assert ShapeProfile.parse(str(profile)) == profile


@given(profiles(), st.data())
def test_sizes_inside_a_profile_fit_with_guidance_and_without(profile, data):
    sizes = {s: data.draw(st.integers(lo // 8, hi // 8)) * 8 for s, (lo, _, hi) in profile.ranges.items() if s in "HW"}
    batch = data.draw(st.integers(*profile.ranges["B"][::2]))
    for guided in (1, 2):
        shape = (guided * batch, 4, sizes["H"] // 8, sizes["W"] // 8)
        assert fits({"sample": shape}, {"sample": profile.shapes(SAMPLE)})


@given(profiles())
def test_one_step_outside_is_refused(profile):
    low, _, high = profile.shapes(SAMPLE)
    for axis in (0, 2, 3):
        for shape, delta in ((low, -1), (high, 1)):
            wrong = [n + delta if i == axis else n for i, n in enumerate(shape)]
            assert not fits({"sample": tuple(wrong)}, {"sample": profile.shapes(SAMPLE)})
    for wrong in (low[:3], (low[0], 5, *low[2:])):
        assert not fits({"sample": wrong}, {"sample": profile.shapes(SAMPLE)})


@given(profiles())
def test_output_shapes_follow_from_inputs(profile):
    decoder = component(
        (TensorSpec("latent", ("B", 4, "H/8", "W/8"), "float32"),),
        (TensorSpec("image", ("B", 3, "H", "W"), "float32"),),
    )
    sizes = profile.sizes("opt")
    shapes = {t.name: t.resolve(sizes) for t in decoder.inputs}
    assert decoder.output_shapes(shapes) == {"image": (sizes["B"], 3, sizes["H"], sizes["W"])}


def test_output_shapes_without_guidance_have_an_odd_batch():
    assert (
        component().output_shapes({"sample": (1, 4, 8, 8), "encoder_hidden_states": (1, 77, 16)})["out_sample"][0] == 1
    )


def test_the_batch_range_goes_from_one_sample_without_guidance_to_all_with_it():
    assert ShapeProfile.parse("B=1:2:4").dim(Expr.parse("2B")) == (1, 4, 8)


@pytest.mark.parametrize("text", ["B", "B=", "B=1:2", "B=a", "Q=1", "B=1:2:3:4", "B=-1", "B=1.5"])
def test_an_unreadable_profile_says_how_to_write_one(text):
    with pytest.raises(ConfigError) as caught:
        ShapeProfile.parse(text)
    assert "B=1:1:4" in str(caught.value)


@pytest.mark.parametrize("text", ["B=2:1:4", "B=1:4:2", "H=0:8:8"])
def test_a_disordered_range_shows_its_numbers(text):
    with pytest.raises(ConfigError, match="min <= opt <= max"):
        ShapeProfile.parse(text)


def test_indivisible_sizes_name_the_neighbors():
    with pytest.raises(ShapeError) as caught:
        SAMPLE.resolve({"B": 1, "H": 500, "W": 512})
    assert "496 or 504" in str(caught.value)


@pytest.mark.parametrize(("text", "expected"), [("H=512,W=512", 64), ("H=512:520:576,W=512", 8)])
def test_the_step_is_coarse_only_when_every_size_divides(text, expected):
    assert step([ShapeProfile.parse(text)], "H", fine=8, coarse=64) == expected


def test_a_dimension_that_is_no_expression_is_refused():
    with pytest.raises(ConfigError, match="not a dimension"):
        Expr.parse("B+1")
