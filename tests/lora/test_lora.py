"""LoRAs that are built in: found, read, refused when they do not fit, fused as diffusers does, part of the key."""

import pytest
import tiny_loras
import torch
from safetensors.torch import save_file

from sdtrt import cli, config, lora, models
from sdtrt.builder import build
from sdtrt.builder.build_plan import forecast
from sdtrt.config import LoraEntry
from sdtrt.errors import ConfigError, ModelError
from sdtrt.pipelines import eager_pipeline
from sdtrt.shapes.sample_inputs import sample_inputs
from sdtrt.system.files import sha256
from sdtrt.verification import verify

SIZES = {"B": 1, "H": 64, "W": 64, "T": 77}

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def files(models, tmp_path_factory):
    """{name: file} of LoRAs: two for sd1, one in kohya's form, one for the U-Net alone, one for sdxl."""
    folder = tmp_path_factory.mktemp("loras")
    return {
        "fox": tiny_loras.make(folder / "fox.safetensors", models["sd1"], 1),
        "ink": tiny_loras.make(folder / "ink.safetensors", models["sd1"], 2),
        "unet": tiny_loras.make(folder / "unet.safetensors", models["sd1"], 3, ("unet",)),
        "kohya": tiny_loras.kohya(folder / "kohya.safetensors", models["sd1"], 4),
        "sdxl": tiny_loras.make(folder / "sdxl.safetensors", models["sdxl"], 5),
    }


def specs_of(folder):
    return models_of(folder).components(folder, "fp32")


def models_of(folder):
    return models.family_of(folder)


# ------------------------------------------------------------------------------------ recipes


@pytest.mark.parametrize(
    ("text", "path", "scale"),
    [
        ("a.safetensors", "a.safetensors", 1.0),
        ("a.safetensors:0.5", "a.safetensors", 0.5),
        ("a.safetensors:-1.5", "a.safetensors", -1.5),
        ("owner/name:2", "owner/name", 2.0),
        ("C:/a.safetensors", "C:/a.safetensors", 1.0),
    ],
)
def test_an_entry_is_a_file_and_a_scale(text, path, scale):
    assert config.load(model="x", lora=[text]).lora == (LoraEntry(path=path, scale=scale),)


def test_an_entry_of_a_recipe_may_name_its_fields(tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("model: x\nlora:\n  - a.safetensors:0.5\n  - {path: b.safetensors, scale: 2}\n")
    assert [(e.path, e.scale) for e in config.load(recipe).lora] == [("a.safetensors", 0.5), ("b.safetensors", 2.0)]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "much"])
def test_a_scale_must_be_a_number(value):
    with pytest.raises(ConfigError, match="lora"):
        config.load(model="x", lora=[{"path": "a", "scale": value}])


# ------------------------------------------------------------------------------------ files


@pytest.mark.parametrize(
    ("name", "slug"),
    [
        ("nothing.safetensors", "lora-missing"),
        ("./nothing", "lora-missing"),
        ("folder/nothing.safetensors", "lora-missing"),
        ("adapter.bin", "lora-pickle"),
        ("empty", "lora-missing"),
    ],
)
def test_a_file_that_cannot_be_a_lora(tmp_path, monkeypatch, name, slug):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "adapter.bin").write_bytes(b"pickled")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError) as caught:
        lora.resolve(name)
    assert caught.value.slug == slug
    assert caught.value.expected


def test_a_folder_gives_its_only_file_and_several_must_be_named(files, tmp_path):
    path = tmp_path / "one.safetensors"
    path.write_bytes(files["fox"].read_bytes())
    assert lora.resolve(tmp_path) == path
    (tmp_path / "two.safetensors").write_bytes(files["ink"].read_bytes())
    with pytest.raises(ModelError, match=r"one.safetensors, two.safetensors"):
        lora.resolve(tmp_path)
    assert lora.resolve(tmp_path, "two.safetensors").name == "two.safetensors"


def test_a_hub_id_that_is_not_at_hand_is_an_error_with_the_next_step():
    with pytest.raises(ModelError) as caught:
        lora.resolve("nobody/nothing")
    assert caught.value.slug == "lora-hub"
    assert "FILE.safetensors" in caught.value.hint


@pytest.mark.parametrize(
    ("content", "slug"),
    [
        (b"not safetensors", "lora-unreadable"),
        ({"conv_in.weight": torch.zeros(2)}, "lora-unreadable"),
        ({"lora_unet_mid_block.lora_down.weight": torch.zeros(2, 2)}, "lora-unreadable"),
        ({"unet.to_q.lora_A.weight": torch.zeros(2, 2), "unet.to_q.dora_scale": torch.zeros(2)}, "lora-dora"),
    ],
)
def test_a_file_that_is_no_lora(models, tmp_path, content, slug):
    path = tmp_path / "a.safetensors"
    path.write_bytes(content) if isinstance(content, bytes) else save_file(content, path)
    with pytest.raises(ModelError) as caught:
        lora.baked([LoraEntry(path=str(path))], specs_of(models["sd1"]), models["sd1"])
    assert caught.value.slug == slug


@pytest.mark.parametrize(("family", "name"), [("sd1", "sdxl"), ("sdxl", "fox"), ("sdxl", "kohya")])
def test_a_lora_of_another_family_is_refused_with_its_keys(models, files, family, name):
    folder = models[family]
    with pytest.raises(ModelError) as caught:
        lora.baked([LoraEntry(path=str(files[name]))], specs_of(folder), folder)
    assert caught.value.slug == "lora-keys"
    assert "lora_A" in caught.value.received
    assert "unet" in caught.value.expected


# ------------------------------------------------------------------------------------ fusing


@pytest.mark.parametrize(
    "chosen",
    [{"fox": 1.0}, {"kohya": 1.0}, {"fox": -0.5, "ink": 1.5, "unet": 1.0}],
    ids=lambda chosen: "+".join(chosen),
)
@pytest.mark.parametrize("part", ["unet", "text_encoder"])
def test_a_module_with_loras_baked_in_computes_what_diffusers_does(models, files, chosen, part):
    folder = models["sd1"]
    specs = specs_of(folder)
    loras = lora.baked([LoraEntry(path=str(files[n]), scale=s) for n, s in chosen.items()], specs, folder)
    module, stock = specs[part].load(folder), specs[part].load(folder)
    names = list(module.state_dict())
    lora.bake(module, specs[part], loras, folder)
    assert list(module.state_dict()) == names, "nothing of peft is left in it"
    stock.inner = getattr(eager_pipeline.eager(folder, loras), part)
    inputs = sample_inputs(specs[part], SIZES)
    with torch.inference_mode():
        for got, want, plain in zip(module(**inputs), stock(**inputs), specs[part].load(folder)(**inputs), strict=True):
            torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)
            assert (want - plain).norm() > 1e-2 * plain.norm(), "the LoRA does something"


def test_a_scale_of_zero_changes_no_bit(models, files):
    folder = models["sd1"]
    spec = specs_of(folder)["unet"]
    loras = lora.baked([LoraEntry(path=str(files["fox"]), scale=0.0)], specs_of(folder), folder)
    module, plain = spec.load(folder), spec.load(folder)
    lora.bake(module, spec, loras, folder)
    for name, tensor in module.state_dict().items():
        assert torch.equal(tensor, plain.state_dict()[name]), name


def test_weights_that_overflow_are_refused(models, files):
    folder = models["sd1"]
    spec = models_of(folder).components(folder, "fp16")["unet"]
    loras = lora.baked([LoraEntry(path=str(files["fox"]), scale=1e6)], specs_of(folder), folder)
    with pytest.raises(ModelError) as caught:
        lora.bake(spec.load(folder), spec, loras, folder)
    assert caught.value.slug == "lora-overflow"


# ------------------------------------------------------------------------------------ builds


def recipe(models, **settings):
    return config.load(
        model=str(models["sd1"]), backend="eager", profiles=["B=1,H=64,W=64"], profile_runs=1, **settings
    )


def test_the_key_of_what_a_lora_changes_has_its_digest_and_scale(models, files, tmp_path):
    plan = forecast(recipe(models, lora=[f"{files['unet']}:0.5"]), tmp_path / "out")
    keys = {step.spec.name: step.key.get("lora") for step in plan.steps}
    digest = sha256(files["unet"])[:16]
    assert keys == {"text_encoder": None, "unet": f"{digest} x 0.5", "vae_decoder": None, "vae_encoder": None}


@pytest.fixture(scope="module")
def baked(models, files, tmp_path_factory):
    """A bundle with two LoRAs in it; the build has compared its image with diffusers' own."""
    out = tmp_path_factory.mktemp("baked") / "bundle"
    return build.build(
        models["sd1"], out, config=recipe(models, lora=[f"{files['fox']}:0.7", f"{files['kohya']}:-0.4"])
    )


def test_a_build_with_loras_is_checked_against_diffusers(baked, files):
    assert baked.manifest.image["psnr_db"] >= 40
    assert [e["scale"] for e in baked.manifest.config["lora"]] == [0.7, -0.4]
    assert all(row.passed for row in verify.verify(baked))


def test_another_scale_rebuilds_only_what_the_lora_changes(baked, models, files):
    plan = forecast(recipe(models, lora=[f"{files['unet']}:0.7"]), baked.path)
    assert {s.spec.name: s.action for s in plan.steps} == {
        "text_encoder": "build",
        "unet": "build",
        "vae_decoder": "reuse",
        "vae_encoder": "reuse",
    }
    assert any(reason.startswith("lora: ") for step in plan.steps for reason in step.reasons)


def test_the_command_line_takes_several(models, files, tmp_path, capsys):
    loras = [part for name in ("fox", "ink") for part in ("--lora", f"{files[name]}:0.5")]
    with pytest.raises(SystemExit) as done:
        cli.main(["build", str(models["sd1"]), "-o", str(tmp_path / "b"), "--backend", "eager", "--dry-run", *loras])
    assert not done.value.code, capsys.readouterr()


# ------------------------------------------------------------------------------------ at run time


def test_generate_takes_several(bundles, files, tmp_path, capsys):
    loras = ["--lora", f"{files['fox']}:-0.5", "--lora", str(files["unet"])]
    call = ["-p", "x", "--steps", "1", "--seed", "1", "--height", "64", "--width", "64", "-o"]
    for name, more in {"plain": [], "styled": loras}.items():
        with pytest.raises(SystemExit) as done:
            cli.main(["generate", str(bundles().path), *call, str(tmp_path / f"{name}.png"), *more])
        assert not done.value.code
    assert (tmp_path / "plain.png").read_bytes() != (tmp_path / "styled.png").read_bytes()
    printed = capsys.readouterr().out
    assert printed.count("LoRA: ") == 1
    assert "text_encoder" in printed
    assert "weights" in printed


def test_generate_says_why_engines_do_not_take_one(bundles, files, tmp_path, capsys):
    with pytest.raises(SystemExit) as done:
        cli.main(["generate", str(bundles("sd1", "fake").path), "-p", "x", "--lora", str(files["fox"])])
    assert done.value.code == 1
    assert "sdtrt build MODEL --lora FILE" in capsys.readouterr().err
