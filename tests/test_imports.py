"""Light imports, a whole registry, short files: what keeps the package quick to start and to read."""

import subprocess
import sys
from pathlib import Path

import pytest

from sdtrt import engines, models, registry
from sdtrt.errors import SdtrtError
from sdtrt.graph import optimize

ROOT = Path(__file__).parents[1]
HEAVY = ("torch", "diffusers", "transformers", "onnx", "onnxruntime", "tensorrt", "polygraphy")


def loaded(code):
    """Modules in sys.modules after `code` ran in a fresh interpreter."""
    script = f"import sys\n{code}\nprint(' '.join(sys.modules))"
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()


@pytest.mark.parametrize(
    "code",
    [
        "import sdtrt",
        "import sdtrt.cli",
        "import sdtrt.plan.layers, sdtrt.bundle.bundle, sdtrt.shapes.spec, sdtrt.config, sdtrt.system.env",
        "import sdtrt.analysis",
        "from sdtrt import engines; [engines.load(n) for n in engines.names()]",
        "from sdtrt import models; [models.load(n) for n in models.names()]",
    ],
)
def test_imports_stay_light(code):
    assert not set(HEAVY) & set(loaded(code))


def test_public_names_resolve():
    import sdtrt

    for name in sdtrt.__all__:
        assert getattr(sdtrt, name) is not None
    assert callable(sdtrt.build)  # not the module of that name
    assert callable(sdtrt.verify)
    with pytest.raises(AttributeError):
        sdtrt.nothing  # noqa: B018 (the access is the test)


PACKAGES = (
    "engines.backends",
    "graph.passes",
    "models.families",
    "analysis.plots",
    "readers.formats",
    "analysis.rules",
)


@pytest.mark.parametrize("package", [f"sdtrt.{name}" for name in PACKAGES])
def test_the_tree_is_the_registry(package):
    folder = ROOT / package.replace(".", "/")
    found = (p for p in folder.iterdir() if p.suffix == ".py" or (p / "__init__.py").exists())
    assert registry.names(package) == tuple(sorted(p.stem for p in found if p.stem[0] != "_"))
    with pytest.raises(SdtrtError) as caught:
        registry.load(package, "nonesuch")
    assert all(name in caught.value.expected for name in registry.names(package))


def test_every_extension_keeps_its_contract():
    for name in engines.names():
        assert engines.load(name).name == name
    for name in models.names():
        assert models.load(name).name == name
    assert optimize.versions(registry.names("sdtrt.graph.passes"))


def test_no_file_is_long():
    files = [p for folder in ("sdtrt", "scripts") for p in (ROOT / folder).rglob("*.py")]
    files = [p for p in files if "tiny" not in p.name]  # the embedded model's training, which is run once
    pages = (ROOT / "sdtrt" / "analysis" / "report" / "page").glob("*/*")
    assert {p.name: n for p in (*files, *pages) if (n := len(p.read_text().splitlines())) > 400} == {}
