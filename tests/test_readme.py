"""The README is true: its commands exist, its Python runs, its files are there."""

import re
import subprocess

import pytest

from sdtrt import cli

PROFILE = "B=1,H=128,W=128"


@pytest.fixture(scope="module")
def readme(request):
    return (request.config.rootpath / "README.md").read_text()


def test_every_make_target_is_real_and_documented(readme, request):
    done = subprocess.run(["make", "help"], capture_output=True, text=True, check=True, cwd=request.config.rootpath)
    targets = re.findall(r"^  make (\w+)", done.stdout, re.MULTILINE)
    named = set(re.findall(r"\bmake (\w+)", readme)) - {"it"}
    assert {"demo", "test"} <= named <= set(targets)
    for target in targets:
        subprocess.run(["make", "-n", target], capture_output=True, check=True, cwd=request.config.rootpath)


def test_every_command_in_the_table_exists(readme, capsys):
    named = set(re.findall(r"`sdtrt (\w+)", readme))
    assert named == {c.name for c in cli.app.registered_commands}
    for command in named:
        with pytest.raises(SystemExit) as caught:
            cli.main([command, "--help"])
        assert caught.value.code == 0


def test_the_python_runs(readme, models, tmp_path, monkeypatch):
    (code,) = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    hub = re.search(r'build\("([^"]+)"', code)[1]
    code = code.replace(f'"{hub}", "xl"', f'"{models["sdxl"]}", "xl", backend="eager", profiles=["{PROFILE}"]')
    monkeypatch.chdir(tmp_path)
    exec(code, {})
    assert (tmp_path / "lighthouse.png").stat().st_size > 1000


def test_every_linked_file_is_there(readme, request):
    for path in re.findall(r"\]\(((?!http)[^)#]+)\)", readme):
        assert (request.config.rootpath / path).exists(), path
