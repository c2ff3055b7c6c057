"""The documentation is complete and builds: every error has a paragraph, every link leads somewhere."""

import ast
import pkgutil
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in sorted((ROOT / "sdtrt").rglob("*.py"))}


def parameters(node: ast.AST) -> tuple[str, list[str]] | None:
    """Name and positional parameters of a function, or of a dataclass, whose fields are its parameters."""
    if isinstance(node, ast.FunctionDef):
        names = [arg.arg for arg in node.args.args]
        return node.name, names[1:] if names[:1] == ["self"] else names
    if isinstance(node, ast.ClassDef):
        fields = [f.target for f in node.body if isinstance(f, ast.AnnAssign)]
        return node.name, [field.id for field in fields if isinstance(field, ast.Name)]
    return None


def called(call: ast.Call) -> str:
    """The last part of the name of what is called."""
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


def expressions(tree: ast.Module) -> Iterator[ast.expr]:
    """Whatever is passed as a slug, by keyword or by position, and the slugs of error classes."""
    taking = dict(found for node in ast.walk(tree) if (found := parameters(node)) and "slug" in found[1])
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield from (keyword.value for keyword in node.keywords if keyword.arg == "slug")
            index = taking.get(called(node), []).index("slug") if called(node) in taking else len(node.args)
            yield from node.args[index : index + 1]
        elif isinstance(node, ast.ClassDef):
            yield from own_slug(node)


def own_slug(node: ast.ClassDef) -> list[ast.expr]:
    """The slug that an error class has of its own."""
    assigned = [a for a in node.body if isinstance(a, ast.Assign) and isinstance(a.targets[0], ast.Name)]
    return [a.value for a in assigned if a.targets[0].id == "slug"]


def record_errors() -> set[str]:
    """Slugs of the errors that `json_records.read` raises: it adds an ending to each."""
    slugs = {c.name: own_slug(c) for t in TREES.values() for c in ast.walk(t) if isinstance(c, ast.ClassDef)}
    reads = [c for t in TREES.values() for c in ast.walk(t) if isinstance(c, ast.Call) and called(c) == "read"]
    names = [call.args[3].id for call in reads if len(call.args) == 5 and isinstance(call.args[3], ast.Name)]
    return {slugs[name][0].value for name in names if name in slugs}


def collected() -> tuple[set[str], set[str]]:
    """All slugs that stand in the source, and patterns of those that are put together there."""
    slugs, patterns = set(), set()
    for value in (e for tree in TREES.values() for e in expressions(tree)):
        joined = [n for n in ast.walk(value) if isinstance(n, ast.JoinedStr)]
        if joined:
            patterns.add("".join(p.value if isinstance(p, ast.Constant) else "{}" for p in joined[0].values))
        else:
            branches = (value.body, value.orelse) if isinstance(value, ast.IfExp) else (value,)
            slugs |= {b.value for b in branches if isinstance(b, ast.Constant) and isinstance(b.value, str)}
    records = {p for p in patterns if p.startswith("{}")}
    return slugs | {p.replace("{}", what) for p in records for what in record_errors()}, patterns - records


@pytest.fixture(scope="module")
def paragraphs() -> dict[str, str]:
    """What docs/errors.md says, by slug."""
    text = (DOCS / "errors.md").read_text(encoding="utf-8")
    parts = re.findall(r"^### (\S+)\n(.*?)(?=^#|\Z)", text, re.MULTILINE | re.DOTALL)
    assert len(parts) == len(dict(parts)), "a slug has two paragraphs"
    return dict(parts)


def test_every_slug_has_a_paragraph_and_every_paragraph_a_slug(paragraphs):
    slugs, patterns = collected()
    assert len(slugs) > 150  # the collector sees them
    assert slugs - set(paragraphs) == set()
    extra = set(paragraphs) - slugs
    assert [s for s in extra if not any(re.fullmatch(p.replace("{}", "[a-z]+"), s) for p in patterns)] == []


def test_a_paragraph_says_something(paragraphs):
    assert [slug for slug, text in paragraphs.items() if len(text.split()) < 6] == []


@pytest.mark.parametrize("package", ["sdtrt", "sdtrt.analysis"])
def test_every_public_name_is_in_the_reference(package):
    listed = set(re.findall(rf"^::: {package}\.(\w+)$", (DOCS / "api.md").read_text(encoding="utf-8"), re.MULTILINE))
    assert set(pkgutil.resolve_name(package).__all__) - {"__version__"} == listed - {"errors"}


def test_every_recipe_and_module_that_a_page_names_exists():
    text = "\n".join(path.read_text(encoding="utf-8") for path in [ROOT / "README.md", *DOCS.glob("*.md")])
    missing = {name for name in re.findall(r"--config ([\w.-]+)", text) if not named_recipe(name)}
    paths = set(re.findall(r"`((?:sdtrt|benchmarks|scripts|tests|configs|examples)/[\w./-]+)`", text))
    assert missing | {path for path in paths if not (ROOT / path).exists()} == set()


def named_recipe(name: str) -> bool:
    """Whether `--config` of a page names a shipped recipe."""
    return name.endswith(".yaml") or (ROOT / "configs" / f"{name}.yaml").is_file()


def test_every_name_of_the_package_in_a_page_exists():
    pages = [ROOT / "README.md", *DOCS.rglob("*.md")]
    names = {n for page in pages for n in re.findall(r"\bsdtrt(?:\.\w+)+", page.read_text(encoding="utf-8"))}
    assert [name for name in sorted(names) if not resolves(name)] == []


def resolves(name: str) -> bool:
    """Whether a dotted name is a module or stands in one."""
    try:
        pkgutil.resolve_name(name)
    except (ImportError, AttributeError):
        return False
    return True


def test_the_site_builds_without_a_warning(tmp_path):
    pytest.importorskip("mkdocs")
    pytest.importorskip("mkdocstrings")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    pages = list((tmp_path / "site").rglob("*.html"))
    assert len(pages) > 10
    # It is read offline too: no page fetches a font, script or style from elsewhere.
    fetched = re.compile(r'<(?:link[^>]+rel="stylesheet"[^>]+href|script[^>]+src|img[^>]+src)="?(https?://[^" >]+)')
    assert [url for page in pages for url in fetched.findall(page.read_text(encoding="utf-8"))] == []
