"""Every use of TensorRT in a set of source files, held against what one release declares.

The files are read, not run. A name is followed from where TensorRT's module is imported: through annotations, simple
assignments, attributes of our own classes and return types of our own functions. What exists in some releases only is
used behind `hasattr(x, "name")` or by `getattr(x, "NAME", default)`, with the name written out. An object that is not
followed may not use a name that only TensorRT has: so a new call cannot escape, it must be annotated.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from trt import _callbacks
from trt._own import Own, annotation
from trt._types import Api, Type

# Names of TensorRT that other libraries' objects have in these files: they do not say what an object is.
COMMON = {"axes", "major", "metadata", "minor", "parse", "query"}


@cache
def _everyday() -> set[str]:
    """Names that Python's own objects and tensors have as well."""
    import io
    import logging
    import os

    import torch

    known = (list, dict, str, bytes, set, tuple, Path, io.TextIOWrapper, io.BufferedReader, logging, os, torch.Tensor)
    return COMMON.union(*map(dir, known))


class Checker(ast.NodeVisitor):
    """One file against one release; `problems` are what it found."""

    def __init__(self, path: Path, api: Api, anywhere: Sequence[Api], own: Own) -> None:
        self.path, self.api, self.anywhere, self.own = path, api, anywhere, own
        self.problems: list[str] = []
        self.uses: set[str] = set()
        self._scopes: list[dict[str, Type]] = [{}]
        self._guards: list[tuple[Type, str]] = []
        self._tree = ast.parse(path.read_text(encoding="utf-8"), str(path))

    def run(self) -> Checker:
        self._declare(self._tree.body)
        self.visit(self._tree)
        return self

    # ------------------------------------------------------------------------------------ scopes

    def _declare(self, body: Iterable[ast.stmt]) -> None:
        """Imports and definitions are visible before they are reached: functions use what stands below them."""
        for node in body:
            if isinstance(node, ast.Import | ast.ImportFrom):
                self._scopes[-1] |= self.own.imported(node)
            elif isinstance(node, ast.If):  # if TYPE_CHECKING
                self._declare(node.body)
            elif isinstance(node, ast.ClassDef):
                bound = next((t for b in node.bases if (t := self.infer(b)) is not None), None)
                self._scopes[-1][node.name] = self.own.subclass(node, bound, self.path.stem)
            elif isinstance(node, ast.FunctionDef):
                self._scopes[-1][node.name] = ("ownfunc", self._annotated(node.returns))

    def _annotated(self, node: ast.expr | None) -> Type:
        return annotation(node, self._lookup, self.own)

    def _lookup(self, name: str) -> Type:
        return next((scope[name] for scope in reversed(self._scopes) if name in scope), None)

    @contextmanager
    def _scope(self, body: Iterable[ast.stmt]) -> Iterator[None]:
        self._scopes.append({})
        self._declare(body)
        yield
        self._scopes.pop()

    def visit_FunctionDef(self, node: ast.FunctionDef, owner: Type = None) -> None:
        for default in (*node.args.defaults, *filter(None, node.args.kw_defaults), *node.decorator_list):
            self.visit(default)
        with self._scope(node.body):
            arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            for argument in arguments:
                self._scopes[-1][argument.arg] = self._annotated(argument.annotation)
            if owner is not None and arguments:
                self._scopes[-1][arguments[0].arg] = owner
            for statement in node.body:
                self.visit(statement)

    def visit_Lambda(self, node: ast.Lambda) -> None:
        with self._scope(()):
            self._scopes[-1] |= {a.arg: None for a in node.args.args}
            self.visit(node.body)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        for base in node.bases:
            self.visit(base)
        made = self._lookup(node.name)
        bound = made[2] if made is not None and made[0] == "ownclass" else None
        if bound is not None:
            self.uses |= {f"{bound}.{name}" for name in self.api.methods(bound)}
            for where, problem in _callbacks.problems(node, bound, self.api):
                self._problem(where, problem)
        for statement in node.body:
            if isinstance(statement, ast.FunctionDef):
                static = any(isinstance(d, ast.Name) and d.id == "staticmethod" for d in statement.decorator_list)
                self.visit_FunctionDef(statement, None if static else ("ownobj", node.name, bound))
            else:
                self.visit(statement)

    # ------------------------------------------------------------------------------------ statements

    def visit_Assign(self, node: ast.Assign) -> None:
        self.visit(node.value)
        for target in node.targets:
            self._assign(target, self.infer(node.value))

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self.visit(node.value)
        self._assign(node.target, self._annotated(node.annotation) or (node.value and self.infer(node.value)))

    def _assign(self, target: ast.expr, kind: Type) -> None:
        if isinstance(target, ast.Name):
            self._scopes[-1][target.id] = kind
        elif isinstance(target, ast.Tuple):
            parts = kind[1] if kind is not None and kind[0] == "tuple" else [None] * len(target.elts)
            for element, part in zip(target.elts, parts, strict=False):
                self._assign(element, part)
        else:
            self.visit(target)

    def visit_For(self, node: ast.For) -> None:
        self.visit(node.iter)
        self._assign(node.target, self._element(node.iter))
        for statement in (*node.body, *node.orelse):
            self.visit(statement)

    def visit_If(self, node: ast.If | ast.IfExp) -> None:
        self.visit(node.test)
        known = len(self._guards)
        self._guards += self._guarded(node.test)
        for part in node.body if isinstance(node.body, list) else [node.body]:
            self.visit(part)
        del self._guards[known:]
        for part in node.orelse if isinstance(node.orelse, list) else [node.orelse]:
            self.visit(part)

    visit_IfExp = visit_If

    def _guarded(self, test: ast.expr) -> list[tuple[Type, str]]:
        tests = test.values if isinstance(test, ast.BoolOp) and isinstance(test.op, ast.And) else [test]
        found = []
        for part in tests:
            match part:
                case ast.Call(func=ast.Name(id="hasattr"), args=[subject, ast.Constant(value=str(name))]):
                    found.append((self.infer(subject), name))
        return found

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        known = len(self._guards)
        for value in node.values:
            self.visit(value)
            if isinstance(node.op, ast.And):
                self._guards += self._guarded(value)
        del self._guards[known:]

    def _comprehension(self, node: Any) -> None:
        with self._scope(()):
            for generator in node.generators:
                self.visit(generator.iter)
                self._assign(generator.target, self._element(generator.iter))
                for test in generator.ifs:
                    self.visit(test)
            for field in ("key", "value", "elt"):
                if hasattr(node, field):
                    self.visit(getattr(node, field))

    visit_ListComp = visit_SetComp = visit_DictComp = visit_GeneratorExp = _comprehension

    def _element(self, node: ast.expr) -> Type:
        kind = self.infer(node)
        return kind[1] if kind is not None and kind[0] == "list" else None

    # ------------------------------------------------------------------------------------ expressions

    def visit_Attribute(self, node: ast.Attribute) -> None:
        self.visit(node.value)
        owner = self.infer(node.value)
        if owner is None:
            if node.attr in self.own.foreign - _everyday():
                self._problem(
                    node, f"`{ast.unparse(node)}`: a name of TensorRT on an object that is not followed: annotate it"
                )
            return
        self._check(node, owner, node.attr, store=isinstance(node.ctx, ast.Store))

    def _check(self, node: ast.AST, owner: Type, name: str, store: bool = False) -> None:
        text = self.api.label(owner)
        if text is None:
            return  # our own
        self.uses.add(f"{text}.{name}")
        problem = self.api.problem(owner, name, store)
        if problem is not None and (owner, name) not in self._guards:
            self._problem(node, problem)

    def visit_Call(self, node: ast.Call) -> None:
        for part in (*node.args, *(k.value for k in node.keywords)):
            self.visit(part)
        match node:
            case ast.Call(
                func=ast.Name(id="hasattr" | "getattr"), args=[subject, ast.Constant(value=str(name)), *default]
            ):
                self._check_literal(node, self.infer(subject), name, bool(default) or node.func.id == "hasattr")
                return
            case ast.Call(func=ast.Name(id="hasattr" | "getattr" | "setattr"), args=[subject, *_]):
                if self.api.label(self.infer(subject)) is not None:
                    self._problem(node, f"`{ast.unparse(node)}`: the name must be written out")
                return
        self.visit(node.func)
        callee = self.infer(node.func)
        problem = self.api.call_problem(callee, node, self.infer)
        if problem is not None and not (
            callee is not None and callee[0] == "method" and (("obj", callee[1]), callee[2]) in self._guards
        ):
            self._problem(node, problem)

    def _check_literal(self, node: ast.Call, owner: Type, name: str, optional: bool) -> None:
        if self.api.label(owner) is None:
            return
        if all(api.problem(owner, name, False) is not None for api in self.anywhere):
            self._problem(node, f"{self.api.label(owner)}.{name} is in no release")
        elif not optional:
            self._check(node, owner, name)

    def infer(self, node: ast.expr) -> Type:
        """What an expression is; None where that is not followed."""
        match node:
            case ast.Name(id=name):
                return self._lookup(name)
            case ast.Attribute(value=value, attr=name):
                owner = self.infer(value)
                return self.own.attribute(owner, name) or self.api.attribute(owner, name)
            case ast.Call(func=ast.Name(id="list" | "tuple" | "sorted" | "reversed"), args=[inner, *_]):
                return self.infer(inner)
            case ast.Call(func=func):
                callee = self.infer(func)
                return self.own.result(callee) or self.api.result(callee)
            case ast.ListComp(elt=element, generators=generators):
                with self._scope(()):
                    for generator in generators:
                        self._assign(generator.target, self._element(generator.iter))
                    return ("list", self.infer(element))
            case ast.IfExp(body=body, orelse=other):
                return self.infer(body) or self.infer(other)
            case ast.Subscript(value=value):
                kind = self.infer(value)
                return kind[1] if kind is not None and kind[0] == "list" else None
            case ast.NamedExpr(value=value):
                return self.infer(value)
        return None

    def _problem(self, node: ast.AST, text: str) -> None:
        line = f"{self.path.name}:{getattr(node, 'lineno', 0)}: {text}"
        if line not in self.problems:
            self.problems.append(line)


def check(files: Sequence[Path], release: Any, releases: Sequence[Any]) -> tuple[list[str], set[str]]:
    """Problems of the files with one of the releases, and the names that they use."""
    apis = [Api(found) for found in releases]
    own = Own(files, apis)
    runs = [Checker(path, Api(release), apis, own).run() for path in files]
    return [p for run in runs for p in run.problems], {u for run in runs for u in run.uses}
