"""The tree can be read: few files in a row, registries of extensions alone, private names inside their package."""

import ast
from pathlib import Path

import pytest
from locations import ROOT

PACKAGE = ROOT / "sdtrt"
TOP = {"__init__.py", "__main__.py", "config.py", "errors.py", "registry.py", "tiny_model.py"}
MOST_IN_A_ROW = 16
# The folder of a registry, and what each of its extensions has at least one of.
REGISTRIES = {
    "analysis/plots": {"draw"},
    "analysis/rules": {"TITLE", "TITLES"},
    "engines/backends": {"BACKEND"},
    "engines/backends/inductor/passes": {"VERSION"},
    "graph/passes": {"VERSION"},
    "models/families": {"FAMILY"},
    "readers/formats": {"sniff"},
}
FILES = sorted(PACKAGE.rglob("*.py"))


def names_of(path: Path) -> set[str]:
    """Names that a module binds at its top."""
    found = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.ImportFrom):
            found |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.Assign):
            found |= {name.id for target in node.targets for name in ast.walk(target) if isinstance(name, ast.Name)}
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            found.add(node.target.id)
    return found


def imports(path: Path) -> list[tuple[str, str]]:
    """Module and name of every import from this package, inside functions too."""
    nodes = [n for n in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(n, ast.ImportFrom)]
    return [(n.module, alias.name) for n in nodes if (n.module or "").startswith("sdtrt") for alias in n.names]


def test_the_top_holds_what_everybody_needs():
    assert {p.name for p in PACKAGE.glob("*.py")} == TOP


def test_no_row_is_long():
    folders = {p.parent for p in PACKAGE.rglob("*") if p.is_file() and "data" not in p.parts}
    rows = {str(f.relative_to(PACKAGE)): sum(p.is_file() for p in f.iterdir()) for f in folders}
    assert {row: count for row, count in rows.items() if count > MOST_IN_A_ROW} == {}


@pytest.mark.parametrize(("folder", "wanted"), REGISTRIES.items())
def test_a_registry_holds_extensions_alone(folder, wanted):
    entries = [p for p in (PACKAGE / folder).iterdir() if p.name not in ("__init__.py", "__pycache__")]
    modules = [p / "__init__.py" if p.is_dir() else p for p in entries]
    assert [p.name for p in entries if p.name.startswith("_")] == []
    assert [str(p.relative_to(PACKAGE)) for p in modules if not wanted & names_of(p)] == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_private_names_stay_in_their_package(path):
    foreign = []
    for module, name in imports(path):
        parts = [*module.split("."), name]
        private = [i for i, part in enumerate(parts) if part.startswith("_") and not part.startswith("__")]
        if not private:
            continue
        holder = ROOT.joinpath(*parts[: private[0]])  # the package of a private module, or the module of a private name
        home = holder if holder.is_dir() else holder.parent
        if home not in path.parents:
            foreign.append(f"{module}.{name}")
    assert foreign == []
