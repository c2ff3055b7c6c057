"""Classes of ours that TensorRT calls: they override all that the base declares, with as many parameters."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from trt._types import Api

# How Python overrides a callback where that is not how it is bound.
OVERRIDES = {
    ("IStreamReader", "read"): 1,  # size
    ("IStreamReaderV2", "read"): 2,  # num_bytes, stream
    ("IStreamWriter", "write"): 1,  # data
}


def problems(node: ast.ClassDef, bound: str, api: Api) -> Iterator[tuple[ast.AST, str]]:
    """What is wrong with a subclass of TensorRT's class `bound`."""
    methods = {m.name: m for m in node.body if isinstance(m, ast.FunctionDef)}
    for name, signatures in api.methods(bound).items():
        if name == "__init__":
            if not _calls_base(methods.get(name), bound):
                yield node, f"{node.name}.__init__ does not call trt.{bound}.__init__(self)"
        elif name not in methods:
            yield node, f"{node.name} does not override {bound}.{name}"
        else:
            wanted = OVERRIDES.get((bound, name), len(signatures[0]["parameters"]))
            given = len(methods[name].args.args) - 1
            if given != wanted:
                yield methods[name], f"{node.name}.{name} takes {given} arguments, {bound}.{name} is given {wanted}"


def _calls_base(init: ast.FunctionDef | None, bound: str) -> bool:
    if init is None:
        return True  # inherited, and called by Python
    calls = [ast.unparse(n.func) for n in ast.walk(init) if isinstance(n, ast.Call)]
    return f"trt.{bound}.__init__" in calls or "super().__init__" in calls
