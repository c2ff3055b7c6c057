"""The command line as a person meets it: results, one clear message for each mistake, and honest exit codes."""

import json
import subprocess
import sys

import pytest
from PIL import Image

from sdtrt import cli, engines
from sdtrt.bundle.bundle import Bundle


@pytest.fixture
def sdtrt(monkeypatch, capsys):
    """run(*arguments) -> (exit code, standard output, standard error), without a traceback in any of them."""
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments):
        with pytest.raises(SystemExit) as caught:
            cli.main([str(a) for a in arguments])
        captured = capsys.readouterr()
        assert "Traceback" not in captured.out + captured.err
        return caught.value.code or 0, captured.out, captured.err

    return run


def pixels(path):
    with Image.open(path) as image:
        return image.size, image.tobytes()


COMMANDS = ("doctor", "build", "why", "generate", "analyze", "compare", "bench", "verify", "push", "pull", "demo")


def test_help_names_every_command(sdtrt):
    code, out, _ = sdtrt("--help")
    assert code == 0
    assert all(command in out for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_shows_an_example(sdtrt, command):
    code, out, _ = sdtrt(command, "--help")
    assert code == 0
    assert f"sdtrt {command}" in out
    assert "Example" in out


@pytest.mark.parametrize(("script", "usage"), [("build_engines", "--profile"), ("analyze", "--out")])
def test_scripts_take_the_same_arguments(script, usage, request):
    path = request.config.rootpath / "scripts" / f"{script}.py"
    done = subprocess.run([sys.executable, path, "--help"], capture_output=True, text=True, check=True)
    assert usage in done.stdout


def test_doctor(sdtrt):
    code, out, _ = sdtrt("doctor")
    assert code == 0
    assert all(name in out for name in engines.names())
    code, out, _ = sdtrt("doctor", "--json")
    facts = json.loads(out)
    assert code == 0
    assert facts["engines"]["onnxruntime"] is None
    assert facts["packages"]["torch"]


def test_dry_run_builds_nothing_and_says_why(sdtrt, models, bundles, tmp_path):
    out = tmp_path / "bundle"
    code, text, _ = sdtrt("build", models["sd1"], "--out", out, "--backend", "fake", "--dry-run")
    assert code == 0
    assert "it is new" in text
    assert not list(tmp_path.iterdir())
    built = bundles("sd1", "fake").path
    code, text, _ = sdtrt(
        "build", models["sd1"], "--out", built, "--backend", "fake", "--precision", "fp16", "--dry-run"
    )
    assert code == 0
    assert "precision: fp32 -> fp16" in text


def test_build_generate_analyze(sdtrt, models, tmp_path):
    bundle, config = tmp_path / "bundle", tmp_path / "recipe.yaml"
    config.write_text(f"model: {models['sd1']}\nbackend: eager\nprofile_runs: 1\nverify_steps: 1\n")
    code, text, _ = sdtrt("build", "--config", config, "--out", bundle)
    assert (code, "PSNR" in text) == (0, True)
    call = ("--prompt", "a fox", "--steps", 2, "--seed", 0, "--num-images", 2, "--scheduler", "dpmsolvermultistep")
    more = ("--out", tmp_path / "new" / "fox.png", "--negative", "blurry", "--record", tmp_path / "image.json")
    code, text, _ = sdtrt("generate", bundle, *call, *more)
    assert code == 0
    assert "unet" in text
    assert "seed 0" in text
    first, second = (pixels(tmp_path / "new" / n) for n in ("fox.png", "fox-2.png"))
    assert first[0] == (128, 128)
    assert first[1] != second[1]
    for suffix in ("html", "json", "csv", "md"):
        code, _, _ = sdtrt("analyze", bundle, "--out", tmp_path / f"report.{suffix}")
        assert code == 0
        assert "unet" in (tmp_path / f"report.{suffix}").read_text()
    code, text, _ = sdtrt("analyze", bundle, "--run", tmp_path / "image.json", "--json", tmp_path / "image-report.json")
    budget = json.loads((tmp_path / "image-report.json").read_text())["budget"]
    assert (code, budget["images"], budget["steps"], budget["assumed"]) == (0, 2, 2, False)
    code, text, _ = sdtrt("analyze", bundle / "unet" / "plan.json", "--out", tmp_path / "unet.md")
    assert (code, "vae_decoder" in text) == (0, False)


def test_the_same_seed_gives_the_same_picture(sdtrt, bundles, tmp_path):
    for name in ("a.png", "b.png"):
        sdtrt("generate", bundles("sd1").path, "-p", "x", "--steps", 2, "--seed", 5, "-o", tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_verify(sdtrt, bundles):
    code, text, _ = sdtrt("verify", bundles("sd1").path, "--steps", 1, "--full")
    assert code == 0
    assert "image" in text
    code, _, err = sdtrt("verify", bundles("sd1", "fake").path, "--steps", 1)
    assert code == 1
    assert "too far" in err


def test_demo(sdtrt, tmp_path):
    code, text, _ = sdtrt("demo", "--out", tmp_path / "demo", "--backend", "eager", "--steps", 2)
    assert code == 0
    assert "recorded, 2 steps" in text
    Bundle.open(tmp_path / "demo" / "bundle").check_everything()  # it can be pushed, say
    assert pixels(tmp_path / "demo" / "image-1.png")[0] == (128, 128)
    assert "<html" in (tmp_path / "demo" / "report.html").read_text()


MISTAKES = {
    "unknown model": (("build", "nothing", "--out", "B"), "no such model"),
    "no model": (("build", "--out", "B"), "model is missing"),
    "missing config": (("build", "M", "--out", "B", "--config", "no.yaml"), "no.yaml"),
    "profile not ordered": (("build", "M", "--out", "B", "--profile", "B=4:1:4"), "min <= opt <= max"),
    "profile not readable": (("build", "M", "--out", "B", "--profile", "B:4"), "B=1:1:4,H=256:512:768"),
    "profile not divisible": (("build", "M", "--out", "B", "--profile", "H=100"), "divisible by 8"),
    "unknown backend": (("build", "M", "--out", "B", "--backend", "tensorflow"), "eager, fake, inductor, onnxruntime"),
    "wrong precision": (("build", "M", "--out", "B", "--precision", "fp7"), "'fp32', 'fp16', 'fp8' or 'int8'"),
    "no bundle": (("generate", "nowhere", "--prompt", "x"), "sdtrt build MODEL --out nowhere"),
    "height not divisible": (("generate", "BUNDLE", "--prompt", "x", "--height", "100"), "divisible by 8"),
    "size outside the profile": (
        ("generate", "BUNDLE", "--prompt", "x", "--height", "512", "--width", "512"),
        "B=1:1:4,H=64:128:192",
    ),
    "sizes for no bundle": (("build", "nowhere", "--add-profile", "H=256"), "sdtrt build MODEL --out nowhere"),
    "sizes by another recipe": (
        ("build", "BUNDLE", "--add-profile", "H=256", "--precision", "fp16", "--lora", "x"),
        "received: --lora, --precision",
    ),
    "sizes for two bundles": (("build", "BUNDLE", "--out", "B", "--add-profile", "H=256"), "sizes are added"),
    "sizes not divisible": (("build", "BUNDLE", "--add-profile", "H=100"), "divisible by 8"),
    "unknown answer to a size": (
        ("generate", "BUNDLE", "-p", "x", "--on-unsupported-size", "ignore"),
        "error or eager",
    ),
    "unknown scheduler": (("generate", "BUNDLE", "--prompt", "x", "--scheduler", "Magic"), "DPMSolverMultistep"),
    "report of no kind": (("analyze", "BUNDLE", "--out", "r.pdf"), ".html"),
    "analyze nothing": (("analyze", "nowhere"), "nowhere"),
    "verify nothing": (("verify", "nowhere"), "nowhere"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_mistakes(sdtrt, models, bundles, tmp_path, monkeypatch, case):
    monkeypatch.chdir(tmp_path)
    arguments, expected = MISTAKES[case]
    names = {"M": models["sd1"], "BUNDLE": bundles("sd1", "fake").path}
    code, _, err = sdtrt(*(names.get(a, a) for a in arguments))
    assert code == 1
    assert "error" in err
    assert expected in " ".join(err.split())
    assert not list(tmp_path.iterdir())


def test_a_wrong_option_is_a_usage_error(sdtrt):
    assert sdtrt("build", "--nonsense")[0] == 2


def test_an_outside_size_comes_with_the_command_that_adds_it(sdtrt, bundles):
    bundle = bundles("sd1", "fake")
    _, _, err = sdtrt("generate", bundle.path, "--prompt", "x", "--height", 512, "--width", 512)
    assert f'sdtrt build {bundle.path} --add-profile "B=1,H=512,W=512"' in err


def test_sizes_are_added_by_one_command_and_then_served(sdtrt, bundle_copy, tmp_path):
    bundle = bundle_copy("sd1", "fake")
    outside = ("generate", bundle, "-p", "x", "--height", 256, "--steps", 1, "-o", tmp_path / "x.png")
    assert sdtrt(*outside)[0] == 1
    add = ("build", bundle, "--add-profile", "B=1,H=256,W=128")
    code, text, _ = sdtrt(*add, "--dry-run")
    assert (code, "nothing was built" in text, sdtrt(*outside)[0]) == (0, True, 1)
    code, text, _ = sdtrt(*add)
    assert (code, "text_encoder was kept: it does not depend on the new sizes" in text) == (0, True)
    code, text, _ = sdtrt(*outside)
    assert (code, "unet: 1 call in profile B=1,H=256,W=128,T=77" in text) == (0, True)


def test_sizes_are_added_when_the_checkpoint_has_moved(sdtrt, models, bundle_copy):
    bundle = bundle_copy("sd1", "fake")
    manifest = bundle / "manifest.json"
    manifest.write_text(manifest.read_text().replace(str(models["sd1"]), "gone"))
    assert "no such model" in sdtrt("build", bundle, "--add-profile", "H=256")[2]
    assert sdtrt("build", models["sd1"], "--out", bundle, "--add-profile", "H=256", "--dry-run")[0] == 0


def test_an_eager_fallback_is_one_clear_line(sdtrt, bundles, tmp_path):
    call = ("-p", "x", "--height", 32, "--width", 32, "--steps", 1, "-o", tmp_path / "x.png")
    code, text, err = sdtrt("generate", bundles("sd1", "fake").path, *call, "--on-unsupported-size", "eager")
    assert code == 0
    assert "warning unet runs the checkpoint's own module for a size that was not built" in err
    assert ".py" not in err
    assert "unet: 1 call of a size that was not built, run by the checkpoint's own module" in text


def test_a_build_without_a_place_is_a_usage_error(sdtrt):
    assert sdtrt("build", "model")[0] == 2
    assert sdtrt("build", "--add-profile", "H=256")[0] == 2


def damage_manifest(path):
    (path / "manifest.json").write_text("{")


def damage_version(path):
    file = path / "manifest.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"format": 99}))


def truncate_engine(path):
    (path / "unet" / "engine.json").write_bytes(b"")


def replace_engine(path):
    file = path / "unet" / "engine.json"
    file.write_bytes(b"x" * file.stat().st_size)


def remove_engine(path):
    (path / "unet" / "engine.json").unlink()


@pytest.mark.parametrize("damage", [damage_manifest, damage_version, truncate_engine, replace_engine, remove_engine])
def test_a_damaged_bundle_says_how_to_rebuild_it(sdtrt, bundle_copy, damage):
    path = bundle_copy()
    damage(path)
    code, _, err = sdtrt("generate", path, "--prompt", "x")
    assert code == 1
    assert "build it: sdtrt build" in err or "rebuild: sdtrt build" in err
