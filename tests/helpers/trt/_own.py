"""Our own classes and functions, as far as `usage` needs them: which of their attributes and results are TensorRT's."""

from __future__ import annotations

import ast
from collections.abc import Callable, Sequence
from pathlib import Path

from trt._types import Api, Type

_TRT: dict[str, Type] = {"trt": ("module",), "tensorrt": ("module",)}


def annotation(node: ast.expr | None, lookup: Callable[[str], Type], own: Own) -> Type:
    """What an annotation names: `trt.Builder`, `trt.X | None`, `list[trt.ITensor]`, a class of ours."""
    match node:
        case ast.Constant(value=str(text)):
            return annotation(ast.parse(text, mode="eval").body, lookup, own)
        case ast.Attribute(value=ast.Name(id=module), attr=name) if (lookup(module) or _TRT.get(module)) == ("module",):
            return ("obj", name)
        case ast.Attribute(value=ast.Attribute(value=ast.Name(id=module), attr=outer), attr=name) if module in _TRT:
            return ("obj", f"{outer}.{name}")
        case ast.BinOp(left=left, right=right):
            return annotation(left, lookup, own) or annotation(right, lookup, own)
        case ast.Subscript(value=ast.Name(id="tuple"), slice=ast.Tuple(elts=parts)):
            if isinstance(parts[-1], ast.Constant):
                return _list(annotation(parts[0], lookup, own))
            return ("tuple", [annotation(p, lookup, own) for p in parts])
        case ast.Subscript(value=ast.Name(id="list" | "Sequence" | "Iterator" | "Iterable"), slice=inner):
            return _list(annotation(inner, lookup, own))
        case ast.Name(id=name) if name in own.classes:
            return ("ownobj", name, own.bound.get(name))
    return None


def _list(inner: Type) -> Type:
    return None if inner is None else ("list", inner)


class Own:
    """Read from the files: {class: {attribute: type}} and {module: {function: type of its result}}."""

    def __init__(self, files: Sequence[Path], apis: Sequence[Api]) -> None:
        trees = {path.stem: ast.parse(path.read_text(encoding="utf-8")) for path in files}
        found = [n for tree in trees.values() for n in ast.walk(tree) if isinstance(n, ast.ClassDef)]
        self.classes: dict[str, dict[str, Type]] = {node.name: {} for node in found}
        self.bound: dict[str, str | None] = {node.name: _bound(node) for node in found}
        self.functions: dict[str, dict[str, Type]] = {}
        self._names: set[str] = set()
        for stem, tree in trees.items():
            functions = [n for n in tree.body if isinstance(n, ast.FunctionDef)]
            self.functions[stem] = {f.name: self._annotated(f.returns) for f in functions}
        for node in found:
            self.classes[node.name] = self._attributes(node)
        # Names of TensorRT that no class of ours has.
        self.foreign: set[str] = set().union(*(api.names() for api in apis)) - self._names

    def _annotated(self, node: ast.expr | None) -> Type:
        return annotation(node, lambda name: _TRT.get(name), self)

    def _attributes(self, node: ast.ClassDef) -> dict[str, Type]:
        found: dict[str, Type] = {}
        for statement in node.body:
            if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
                found[statement.target.id] = self._annotated(statement.annotation)
            if isinstance(statement, ast.FunctionDef):
                found[statement.name] = self._method(statement)
                parameters = {a.arg: self._annotated(a.annotation) for a in statement.args.args}
                found |= self._on_self(statement, parameters)
        if self.bound[node.name] is None:  # a callback class has TensorRT's names because it must
            self._names |= found.keys()
        return found

    def _method(self, node: ast.FunctionDef) -> Type:
        result = self._annotated(node.returns)
        is_property = any(isinstance(d, ast.Name) and "property" in d.id for d in node.decorator_list)
        return result if is_property else ("ownfunc", result)

    def _on_self(self, method: ast.FunctionDef, parameters: dict[str, Type]) -> dict[str, Type]:
        found: dict[str, Type] = {}
        for node in ast.walk(method):
            match node:
                case ast.AnnAssign(target=ast.Attribute(value=ast.Name(id="self"), attr=name), annotation=kind):
                    found[name] = self._annotated(kind)
                case ast.Assign(targets=targets, value=value):
                    for target in targets:
                        found |= _from_parameters(target, value, parameters)
        return found

    def imported(self, node: ast.Import | ast.ImportFrom) -> dict[str, Type]:
        """Names that an import brings, where they matter."""
        found: dict[str, Type] = {}
        for alias in node.names:
            local = alias.asname or alias.name
            if isinstance(node, ast.Import):
                if alias.name == "tensorrt":
                    found[local] = ("module",)
            elif node.module == "tensorrt":
                found[local] = ("class", alias.name)
            elif alias.name in self.functions:
                found[local] = ("ownmod", alias.name)
            elif (stem := (node.module or "").rpartition(".")[2]) in self.functions:
                if alias.name in self.classes:
                    found[local] = ("ownclass", alias.name, self.bound[alias.name])
                elif alias.name in self.functions[stem]:
                    found[local] = ("ownfunc", self.functions[stem][alias.name])
        return found

    def subclass(self, node: ast.ClassDef, base: Type, stem: str) -> Type:
        """A class that is defined here."""
        return ("ownclass", node.name, base[1] if base is not None and base[0] == "class" else None)

    def attribute(self, owner: Type, name: str) -> Type:
        """Attributes of our own objects and modules."""
        match owner:
            case ("ownobj" | "ownclass", cls, _):
                return self.classes.get(cls, {}).get(name)
            case ("ownmod", module):
                if name in self.classes:
                    return ("ownclass", name, self.bound[name])
                found = self.functions[module].get(name)
                return None if found is None else ("ownfunc", found)
        return None

    def result(self, callee: Type) -> Type:
        """What a call of ours gives."""
        match callee:
            case ("ownclass", name, bound):
                return ("ownobj", name, bound)
            case ("ownfunc", result):
                return result
        return None


def _bound(node: ast.ClassDef) -> str | None:
    for base in node.bases:
        if isinstance(base, ast.Attribute) and isinstance(base.value, ast.Name) and base.value.id in _TRT:
            return base.attr
    return None


def _from_parameters(target: ast.expr, value: ast.expr, parameters: dict[str, Type]) -> dict[str, Type]:
    """`self.x = x`, and several of them in one line."""
    if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
        pairs = zip(target.elts, value.elts, strict=False)
    else:
        pairs = iter([(target, value)])
    found: dict[str, Type] = {}
    for left, right in pairs:
        match left, right:
            case ast.Attribute(value=ast.Name(id="self"), attr=name), ast.Name(id=source):
                found[name] = parameters.get(source)
            case ast.Attribute(value=ast.Name(id="self"), attr=name), _:
                found.setdefault(name, None)
    return found
