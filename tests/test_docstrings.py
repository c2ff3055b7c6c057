"""Public functions of four or more parameters say what each is, in a section `Args:`."""

import ast
from pathlib import Path

import pytest
from locations import ROOT

PACKAGE = ROOT / "sdtrt"
# Triton's kernels are outside; an option of a command says what it is in its own help.
FILES = sorted(p for p in PACKAGE.rglob("*.py") if not {"kernels", "commands"} & {*p.parts})
MANY = 4


def undocumented(path: Path) -> list[str]:
    """Public functions and methods with many parameters and no such section."""
    found = []
    stack = [(node, "") for node in ast.parse(path.read_text(encoding="utf-8")).body]
    while stack:
        node, prefix = stack.pop()
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            stack += [(inner, f"{node.name}.") for inner in node.body]
        if not isinstance(node, ast.FunctionDef) or node.name.startswith("_"):
            continue
        arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        own = [a for a in arguments if a.arg not in ("self", "cls")]
        if len(own) >= MANY and "Args:" not in (ast.get_docstring(node) or ""):
            found.append(f"{prefix}{node.name}")
    return sorted(found)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_functions_of_many_parameters_document_them(path):
    assert undocumented(path) == []
