"""`sdtrt build --print-trtexec`: NVIDIA's commands for what a recipe would build, on a machine without TensorRT."""

import pytest

from sdtrt import cli


def run(capsys, *arguments):
    with pytest.raises(SystemExit) as ended:
        cli.main(["build", "--print-trtexec", "--out", "nowhere", *arguments])
    return ended.value.code, capsys.readouterr().out


def test_every_component_has_commands_for_10_and_11(models, capsys):
    code, text = run(capsys, str(models["sd1"]), "--backend", "tensorrt", "--profile", "B=1:1:4,H=64:128:192,W=128")
    assert code == 0
    for name in ("text_encoder", "unet", "vae_decoder", "vae_encoder"):
        assert text.count(f"--saveEngine={name}.plan") == text.count(f"--loadEngine={name}.plan") == 2
    assert text.count("--stronglyTyped") == 4
    assert "--maxShapes=sample:8x4x24x16," in text


def test_only_the_components_that_were_named(models, capsys):
    _, text = run(capsys, str(models["sd1"]), "--component", "unet")
    assert "--onnx=unet/model.onnx" in text
    assert "vae" not in text


def test_options_of_a_recipe_are_flags(models, capsys, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"model: {models['sd1']}\nbackend: tensorrt\noptions: {{optimization_level: 5, guided_only: true}}\n"
    )
    _, text = run(capsys, "--config", str(recipe), "--component", "unet")
    assert "--builderOptimizationLevel=5" in text
    assert "--minShapes=sample:2x4x" in text


def test_a_wrong_option_is_an_error(models, capsys, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"model: {models['sd1']}\nbackend: tensorrt\noptions: {{fp16: true}}\n")
    code, text = run(capsys, "--config", str(recipe))
    assert (code, text.count("trtexec --onnx")) == (1, 0)
