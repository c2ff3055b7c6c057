"""The wheel holds all that the package needs; `make wheel` installs it into an empty environment and runs the demo."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# Files that are no modules, by folder of the package.
DATA = ("py.typed", "configs/*.yaml", "data/tiny-sd/**/*", "analysis/report/page/**/*")


@pytest.fixture(scope="module")
def names(tmp_path_factory):
    """The files of the wheel that `python -m build` makes by way of a source distribution, as a release does."""
    pytest.importorskip("build")
    copy = tmp_path_factory.mktemp("wheel") / "source"
    copy.mkdir()
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    for name in ("sdtrt", "configs"):
        shutil.copytree(ROOT / name, copy / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", "dist", "."]
    done = subprocess.run(command, cwd=copy, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = (copy / "dist").glob("*.whl")
    return set(zipfile.ZipFile(wheel).namelist())


def test_every_module_is_in_the_wheel(names):
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "sdtrt").rglob("*.py")}
    assert {name for name in names if name.endswith(".py")} == modules


@pytest.mark.parametrize("pattern", DATA)
def test_every_other_file_that_the_package_reads_is_in_the_wheel(names, pattern):
    package = ROOT / "sdtrt"
    files = {f"sdtrt/{path.relative_to(package)}" for path in package.glob(pattern) if path.is_file()}
    assert files
    assert files <= names


def test_the_recipes_are_one_copy():
    assert (ROOT / "sdtrt" / "configs").resolve() == ROOT / "configs"


def test_nothing_else_is_installed(names):
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {"sdtrt"}
