"""Light imports, a whole registry, and a budget: what keeps the package quick to start and to read."""

import io
import subprocess
import sys
import token
import tokenize
from pathlib import Path

import pytest

from sdtrt import engines, models, registry
from sdtrt.errors import SdtrtError
from sdtrt.graph import optimize

ROOT = Path(__file__).parents[1]
HEAVY = ("torch", "diffusers", "transformers", "onnx", "onnxruntime", "tensorrt", "polygraphy")
# Lines of code, by part: what builds and runs, TensorRT's engine, the compiler's, the readers of other programs' files,
# what explains, and TREx's names, which exist for the notebooks of others.
CODE_LINES = {"run": 9590, "tensorrt": 2400, "inductor": 2900, "readers": 1300, "analysis": 5200, "trex": 1700}


def part_of(path):
    """Which of them a file belongs to."""
    if "trex" in path.parts or "readers" in path.parts:
        return "trex" if "trex" in path.parts else "readers"
    if path.stem.startswith("_trt_") or path.stem == "tensorrt":
        return "tensorrt"
    if "_inductor" in path.parts or path.stem in ("inductor", "observe"):
        return "inductor"
    explains = "analysis" in path.parts or path.stem in ("analyze", "compare", "_show", "_sources")
    return "analysis" if explains else "run"


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


PACKAGES = ("engines", "graph.passes", "models.families", "analysis.plots", "readers.formats", "analysis.rules")


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


def code_lines(path):
    """Lines that hold code: blank lines, comments and docstrings are free, so that nobody saves on explanation."""
    kinds = {token.OP, token.NAME, token.NUMBER, token.STRING, getattr(token, "FSTRING_START", token.STRING)}
    lines = set()
    for t in tokenize.generate_tokens(io.StringIO(path.read_text()).readline):
        if t.type in kinds and not (t.type == token.STRING and t.line.lstrip().startswith('"""')):
            lines.update(range(t.start[0], t.end[0] + 1))
    return len(lines)


def test_the_package_stays_small():
    files = [p for folder in ("sdtrt", "scripts") for p in (ROOT / folder).rglob("*.py")]
    files = [p for p in files if "tiny" not in p.name]  # the embedded model's training, which is run once
    spent = dict.fromkeys(CODE_LINES, 0)
    for path in files:
        spent[part_of(path)] += code_lines(path)
    assert {part: n for part, n in spent.items() if n > CODE_LINES[part]} == {}
    pages = (ROOT / "sdtrt" / "analysis" / "page").iterdir()
    assert {p.name: n for p in (*files, *pages) if (n := len(p.read_text().splitlines())) > 400} == {}
