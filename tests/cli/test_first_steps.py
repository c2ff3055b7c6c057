"""What a newcomer types first, and the mistakes that are made then."""

import subprocess
import sys

import pytest

import sdtrt as package
from sdtrt import cli
from sdtrt.pipelines import load


@pytest.fixture
def sdtrt(monkeypatch, capsys):
    """run(*arguments) -> (exit code, what was printed), at 80 columns and without a traceback."""
    monkeypatch.setenv("COLUMNS", "80")

    def run(*arguments):
        with pytest.raises(SystemExit) as caught:
            cli.main([str(a) for a in arguments])
        printed = "".join(capsys.readouterr())
        assert "Traceback" not in printed
        return caught.value.code or 0, printed

    return run


def test_the_version_is_asked_for(sdtrt):
    assert sdtrt("--version") == (0, f"sdtrt {package.__version__}\n")


def test_the_package_is_a_command_too():
    done = subprocess.run([sys.executable, "-m", "sdtrt", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"sdtrt {package.__version__}\n"


def test_the_help_says_where_to_begin(sdtrt):
    assert "sdtrt demo" in sdtrt("--help")[1]


def test_a_build_of_nothing_says_what_is_missing_as_it_is_typed(sdtrt):
    code, text = sdtrt("build", "--out", "x")
    assert code == 1
    assert "MODEL" in text
    assert "--config" in text


def test_usage_names_arguments_once(sdtrt):
    assert "BASELINE CANDIDATE... " not in sdtrt("compare", "--help")[1]
    assert "[SOURCE]..." in sdtrt("analyze", "--help")[1]


def test_a_picture_that_cannot_be_written_is_told_before_anything_is_loaded(sdtrt, bundles, tmp_path, monkeypatch):
    monkeypatch.setattr(load, "load", None)
    for name in ("out.bmpx", "out"):
        code, text = sdtrt("generate", bundles("sd1", "fake").path, "-p", "x", "--out", tmp_path / name)
        assert code == 1
        assert "error (picture-kind)" in text
        assert ".png" in text


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("build", "m", "--config", "nowhere.yaml"), "the config cannot be read: No such file or directory\n"),
        (("generate", "BUNDLE", "-p", "x", "--image", "no.png"), "the picture cannot be read: No such file"),
        (("analyze", "BUNDLE", "--run", "no.json"), "no run can be read here: No such file or directory\n"),
        (("build", "m", "--precision", "fp17"), "expected: 'fp32', 'fp16', 'fp8' or 'int8'\n"),
        (("build", "MODEL", "--out", "x", "--backend", "foo"), "'foo' is none of the backends\n"),
        (("compare", "BUNDLE"), "received: 1 of them\n"),
    ],
)
def test_what_is_wrong_is_said_and_what_to_do_is_an_action(sdtrt, bundles, models, arguments, said):
    known = {"BUNDLE": bundles("sd1", "fake").path, "MODEL": models["sd1"]}
    code, text = sdtrt(*(known.get(a, a) for a in arguments))
    assert code == 1
    assert said in text
    assert "do: [Errno" not in text


def test_one_call_is_no_calls(sdtrt, bundles, tmp_path):
    _, text = sdtrt("generate", bundles("sd1", "fake").path, "-p", "x", "--steps", 1, "--out", tmp_path / "o.png")
    assert "1 call, " in text
    assert "1 calls" not in text


def test_verify_checks_what_lies_beside_the_engines(sdtrt, bundle_copy):
    bundle = bundle_copy("sd1", "fake")
    config = bundle / "pipeline" / "model_index.json"
    config.write_text(config.read_text() + " ")
    code, text = sdtrt("verify", bundle)
    assert code == 1
    assert "pipeline/model_index.json is damaged" in text
