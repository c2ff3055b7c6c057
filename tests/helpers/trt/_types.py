"""What an expression can be in `usage`, and what a release says about it.

A type is a tuple: ("module",), ("class", X), ("obj", X), ("method", X, name), ("function", name), ("list", type),
("tuple", types); our own are ("ownmod", name), ("ownclass", name, bound), ("ownobj", name, bound), ("ownfunc", type).
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from typing import Any

Type = tuple[Any, ...] | None


def of_text(text: str, classes: dict[str, Any]) -> Type:
    """The type that a docstring names: "IBuilderConfig", "list[Dims]"."""
    text = text.removesuffix(" | None").strip()
    if text in classes:
        return ("obj", text)
    if text.startswith(("list[", "List[")):
        inner = of_text(text[5:-1], classes)
        return ("list", inner) if inner is not None else None
    return None


class Api:
    """One release, asked about types."""

    def __init__(self, bindings: Any) -> None:
        self.bindings = bindings
        self.version: str = bindings.version
        self.classes: dict[str, Any] = bindings.classes

    def names(self) -> set[str]:
        """Members of all classes that are not enumerations."""
        return {m for entry in self.classes.values() if entry["enum"] is None for m in entry["members"]}

    def label(self, kind: Type) -> str | None:
        """How to name a type of TensorRT's; None for ours and for lists."""
        match kind:
            case ("module",):
                return "tensorrt"
            case ("class" | "obj", name):
                return str(name)
            case ("ownobj", _, str(bound)):
                return str(bound)
        return None

    def problem(self, owner: Type, name: str, store: bool) -> str | None:
        """Why `owner.name` cannot be used, or None."""
        match owner:
            case ("module",):
                known = name in self.classes or name in self.bindings.functions or name in self.bindings.aliases
                return None if known or name == "__version__" else self._missing("tensorrt", name)
            case ("class", cls):
                enum = self._entry(cls)["enum"]
                if enum is not None:
                    return None if name in enum or name == "__members__" else self._missing(cls, name)
                known = f"{cls}.{name}" in self.classes or self.bindings.member(cls, name) is not None
                return None if known else self._missing(cls, name)
            case ("obj", cls):
                return self._member_problem(cls, name, store)
        return None  # our own subclass: what the base lacks is ours

    def _entry(self, cls: str) -> Any:
        return self.classes.get(cls, {"enum": None, "members": {}, "bases": []})

    def _missing(self, owner: str, name: str) -> str:
        return f"{owner}.{name} is not in TensorRT {self.version}"

    def _member_problem(self, cls: str, name: str, store: bool) -> str | None:
        if cls not in self.classes:
            return f"{cls} is not in TensorRT {self.version}"
        if self._entry(cls)["enum"] is not None:
            return None if name in ("name", "value") and not store else self._missing(cls, name)
        member = self.bindings.member(cls, name)
        if member is None:
            return self._missing(cls, name)
        if store and not member.get("settable"):
            return f"{cls}.{name} cannot be set in TensorRT {self.version}"
        return None

    def attribute(self, owner: Type, name: str) -> Type:
        """What `owner.name` is."""
        match owner:
            case ("module",):
                if name in self.classes:
                    return ("class", name)
                return ("function", name) if name in self.bindings.functions else None
            case ("class", cls):
                if f"{cls}.{name}" in self.classes:
                    return ("class", f"{cls}.{name}")
                return ("obj", cls) if self._entry(cls)["enum"] else ("unbound", cls, name)
            case ("obj", cls) | ("ownobj", _, cls) if cls in self.classes:
                member = self.bindings.member(cls, name)
                if member is None:
                    return None
                return of_text(member["type"], self.classes) if member["kind"] == "property" else ("method", cls, name)
        return None

    def _signatures(self, callee: Type) -> tuple[str, Any] | None:
        match callee:
            case ("class", cls) if cls in self.classes and self._entry(cls)["enum"] is None:
                found = self.bindings.member(cls, "__init__")
                return f"{cls}()", found["signatures"] if found else []
            case ("method", cls, name):
                found = self.bindings.member(cls, name)
                return f"{cls}.{name}()", found["signatures"] if found else []
            case ("function", name):
                return f"{name}()", self.bindings.functions[name]
        return None

    def result(self, callee: Type) -> Type:
        """What a call gives."""
        match callee:
            case ("class", cls):
                return ("obj", cls)
        found = self._signatures(callee)
        return of_text(found[1][0]["returns"], self.classes) if found and found[1] else None

    def call_problem(self, callee: Type, node: ast.Call, infer: Callable[[ast.expr], Type]) -> str | None:
        """Why a call does not fit any declared signature, or None."""
        found = self._signatures(callee)
        if (
            found is None
            or any(isinstance(a, ast.Starred) for a in node.args)
            or any(k.arg is None for k in node.keywords)
        ):
            return None
        name, signatures = found
        if any(self._accepts(s["parameters"], node, infer) for s in signatures):
            return None
        wanted = " or ".join("(" + ", ".join(p["name"] for p in s["parameters"]) + ")" for s in signatures)
        return f"`{ast.unparse(node)}`: {name} takes {wanted or 'no call'} in TensorRT {self.version}"

    def _accepts(self, parameters: list[Any], node: ast.Call, infer: Callable[[ast.expr], Type]) -> bool:
        names = [p["name"] for p in parameters]
        given = dict(zip(names, node.args, strict=False))
        keywords = {k.arg: k.value for k in node.keywords if k.arg}
        if len(node.args) > len(names) or given.keys() & keywords.keys() or not keywords.keys() <= set(names):
            return False
        given |= keywords
        if any(p["name"] not in given and p["default"] is None for p in parameters):
            return False
        return all(self._fits(p["type"], infer(given[p["name"]])) for p in parameters if p["name"] in given)

    def _fits(self, wanted: str, kind: Type) -> bool:
        """An enumeration member or an object that is followed must be of the declared class; the rest passes."""
        if kind is None or kind[0] != "obj" or wanted not in self.classes or wanted == "Dims":
            return True
        return kind[1] == wanted or wanted in self._entry(kind[1])["bases"]

    def methods(self, cls: str) -> dict[str, Any]:
        """Signatures of the methods of a class."""
        members = self._entry(cls)["members"]
        return {n: m["signatures"] for n, m in members.items() if m["kind"] == "method" and m["signatures"]}
