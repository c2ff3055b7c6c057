"""Recipes: every mistake names the key, what was received and what is allowed."""

from pathlib import Path

import pytest

from sdtrt import config, engines
from sdtrt.errors import ConfigError

RECIPES = sorted((Path(__file__).parents[1] / "configs").glob("*.yaml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.stem)
def test_every_shipped_recipe_is_valid(path):
    recipe = config.load(path)
    assert recipe.backend in engines.names()
    assert engines.load(recipe.backend).check_options(recipe.options)


def write(tmp_path, text):
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize(("former", "now"), [("keep", "exclude"), ("most_error", "max_error")])
def test_a_key_of_an_earlier_checkout_is_answered_with_its_new_name(tmp_path, former, now):
    path = tmp_path / "recipe.yaml"
    path.write_text(f"model: x\ncalibration:\n  {former}: 0\n")
    with pytest.raises(ConfigError) as caught:
        config.load(path)
    assert (caught.value.slug, caught.value.hint) == ("config-unknown-key", f"did you mean 'calibration.{now}'?")


def test_an_unknown_key_is_named_with_the_nearest_one(tmp_path):
    with pytest.raises(ConfigError) as caught:
        config.load(write(tmp_path, "model: x\nprecison: fp16\n"))
    assert caught.value.slug == "config-unknown-key"
    assert "did you mean 'precision'?" in str(caught.value)
    assert "backend" in str(caught.value.expected)


@pytest.mark.parametrize(
    ("text", "slug"),
    [
        ("model: x\nprecision: fp7\n", "config-value"),
        ("model: x\nopset: 9\n", "config-value"),
        ("backend: fake\n", "config-missing-key"),
        ("a: [1\n", "config-yaml"),
        ("- a\n", "config"),
        ("model: x\nprofiles: ['B=2:1:3']\n", "profile-order"),
    ],
)
def test_wrong_recipes(tmp_path, text, slug):
    with pytest.raises(ConfigError) as caught:
        config.load(write(tmp_path, text))
    assert caught.value.slug == slug


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"nowhere\.yaml"):
        config.load(tmp_path / "nowhere.yaml")


def test_arguments_win_over_the_file_and_none_does_not(tmp_path):
    path = write(tmp_path, "model: x\nprecision: fp16\nbackend: fake\n")
    recipe = config.load(path, precision="fp32", backend=None)
    assert (recipe.precision, recipe.backend) == ("fp32", "fake")


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.stem)
def test_a_shipped_recipe_is_found_by_its_name(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert config.load(Path(path.stem)) == config.load(path)


def test_an_unknown_recipe_lists_the_names():
    with pytest.raises(ConfigError) as caught:
        config.load(Path("sdxl_inductor"))
    assert caught.value.slug == "config-missing"
    assert all(path.stem in caught.value.expected for path in RECIPES)


def test_a_file_or_a_folder_of_the_working_directory_keeps_its_meaning(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path, "model: mine\nbackend: fake\n").rename("sdxl_onnxruntime")
    assert config.load(Path("sdxl_onnxruntime")).model == "mine"
    (tmp_path / "sdxl_tensorrt_fp8").mkdir()
    assert config.load(Path("sdxl_tensorrt_fp8")).precision == "fp8"
