"""The tiny model's data and its measure: rendering repeats, captions read back, the analysis is right on the truth."""

import numpy as np
import pytest
import tiny_quality
import tiny_scenes
import torch
from scipy import ndimage


def draw(count: int, seed: int, two_share: float) -> tuple[tiny_scenes.Scenes, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    scenes = tiny_scenes.sample(count, generator, two_share)
    return scenes, tiny_scenes.caption_words(scenes, generator)


@pytest.mark.parametrize(("blur_px", "noise"), [(0.0, 0.0), (1.0, 0.03), (1.6, 0.05)])
def test_analysis_is_right_on_ground_truth(blur_px: float, noise: float) -> None:
    scenes, _ = draw(600, 1, two_share=0.0)
    pictures = tiny_scenes.render(scenes).permute(0, 2, 3, 1).double().numpy()
    random = np.random.default_rng(0)
    prompts = []
    for row in range(len(pictures)):
        facts = scenes.facts(row)
        ((color, shape),) = facts["objects"]
        prompts.append(tiny_scenes.Prompt("", color, shape, facts["background"]))
    spoilt = (
        np.clip(ndimage.gaussian_filter(p, (blur_px, blur_px, 0)) + random.normal(0, noise, p.shape), 0, 1)
        for p in pictures
    )
    result = tiny_quality.tally(prompts, spoilt)
    assert min(result[key] for key in ("color", "background", "shape")) >= 0.99, result["confusion"]


def test_analysis_of_an_empty_picture_finds_no_object() -> None:
    seen = tiny_quality.analyze(np.full((128, 128, 3), 0.98))
    assert seen == tiny_quality.Seen("", "", "white")


def test_captions_read_back() -> None:
    scenes, words = draw(3000, 2, two_share=0.4)
    for row, text in enumerate(tiny_scenes.caption_text(words)):
        facts, said = scenes.facts(row), tiny_scenes.parse(text)
        assert said["objects"] == facts["objects"], text
        assert said["background"] in (None, facts["background"]), text
        assert said["relation"] in (None, facts["relation"]), text


def test_captions_vary_and_use_every_word() -> None:
    _, words = draw(20000, 3, two_share=0.4)
    assert set(words.flatten().tolist()) == set(range(len(tiny_scenes.WORDS))) - {tiny_scenes.WORDS.index("medium")}
    assert len(set(tiny_scenes.caption_text(words))) > 10000


def test_drawing_repeats_from_a_seed() -> None:
    first, second = draw(16, 4, 0.5), draw(16, 4, 0.5)
    assert torch.equal(tiny_scenes.render(first[0]), tiny_scenes.render(second[0]))
    assert torch.equal(first[1], second[1])


def test_shapes_stay_inside_and_apart() -> None:
    scenes, _ = draw(4000, 5, two_share=0.5)
    reach = scenes.radius_px[..., None]
    assert bool((scenes.center_px - reach >= 5.9).all())
    assert bool((scenes.center_px + reach <= 128 - 5.9).all())
    pairs = scenes[scenes.two]
    gap = (pairs.center_px[:, 0] - pairs.center_px[:, 1]).abs().amax(1) - pairs.radius_px.sum(1)
    assert bool((gap >= 4.9).all())
    horizontal = pairs[pairs.relation == 0]
    assert bool((horizontal.center_px[:, 0, 0] < horizontal.center_px[:, 1, 0]).all())


def test_evaluation_prompts_are_balanced_and_fixed() -> None:
    prompts = tiny_scenes.evaluation_prompts(200)
    assert prompts == tiny_scenes.evaluation_prompts(200)
    for key, names in (
        ("color", tiny_scenes.COLORS),
        ("background", tiny_scenes.COLORS),
        ("shape", tiny_scenes.SHAPES),
    ):
        counts = [sum(getattr(p, key) == name for p in prompts) for name in names]
        assert max(counts) - min(counts) <= 4, (key, counts)
    for prompt in prompts:
        said = tiny_scenes.parse(prompt.text)
        assert said["objects"] == [(prompt.color, prompt.shape)]
        assert said["background"] == prompt.background != prompt.color
