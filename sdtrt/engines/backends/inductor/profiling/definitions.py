"""The kernels in a module that Inductor wrote: their names on the device, their parameters, and what they write."""

import ast
import re
from dataclasses import dataclass
from textwrap import dedent
from typing import Literal

_DEFINITION = re.compile(r"^(\w+) = async_compile\.(triton|cpp_pybinding|cpp)\(", re.MULTILINE)
_SIGNATURE = re.compile(r"\b(?:def \w+|kernel)\(([^)]*)\)")


@dataclass(frozen=True)
class Kernel:
    """A generated kernel: its name on the device, the names of its parameters, and those that it writes."""

    native: Literal["triton", "cpp"]
    kernel: str
    parameters: tuple[str, ...]
    written: frozenset[str]


def read(text: str) -> dict[str, Kernel]:
    """Generated kernels by the variable that the module holds them in."""
    found = list(_DEFINITION.finditer(text))
    kernels = {}
    for match, end in zip(found, [*(m.start() for m in found), len(text)][1:], strict=True):
        body = text[match.end() : end]
        name, language = match.groups()
        own = re.match(r"'(\w+)'", body)
        signature = _SIGNATURE.search(body)
        words = signature.group(1).split(",") if signature else []
        python = language == "triton"  # "XBLOCK : tl.constexpr"; in C++ it is "const at::Half* in_ptr0"
        parameters = tuple((w.partition(":")[0] if python else w).split()[-1] for w in words if w.strip())
        written = frozenset(p for p in parameters if p.startswith(("out_ptr", "in_out_ptr")))
        if not python or own is None:
            kernels[name] = Kernel("cpp", name, parameters, written)
        else:
            stored = written or _stored(text[match.start() : end], parameters)
            kernels[name] = Kernel("triton", own.group(1), parameters, stored)
    return kernels


def _stored(definition: str, parameters: tuple[str, ...]) -> frozenset[str]:
    """Parameters of a hand-written Triton kernel that it stores to, by addresses that it computes from them."""
    source = next(
        str(node.value)
        for node in ast.walk(ast.parse(definition))
        if isinstance(node, ast.Constant) and "tl.store(" in str(node.value)
    )
    sources = {p: {p} for p in parameters}
    stored: set[str] = set()
    for node in ast.walk(ast.parse(dedent(source))):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            name = node.targets[0].id
            sources[name] = sources.get(name, set()) | _pointer(node.value, sources)
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "tl.store":
            stored |= _pointer(node.args[0], sources)
    return frozenset(stored)


def _pointer(value: ast.expr, sources: dict[str, set[str]]) -> set[str]:
    """The parameter that an address is computed from: the leftmost name of a sum."""
    while isinstance(value, ast.BinOp):
        value = value.left
    return sources.get(value.id, set()) if isinstance(value, ast.Name) else set()
