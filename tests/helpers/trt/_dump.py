"""Write what one TensorRT binding declares, as JSON: run in a fresh interpreter, with the standard library only.

usage: _dump.py FOLDER OUT, where FOLDER holds `tensorrt_bindings` and its stand-in libraries.
"""

import inspect
import json
import os
import pathlib
import re
import sys

OVERLOAD = re.compile(r"^(?:\d+\. )?(\w+)(\(.*)$")
HIDDEN = ("_pybind11_conduit_v1_",)


def main(folder, out):
    # Nothing behind the bindings exists, so no function of it may be looked up before it is called: never.
    sys.setdlopenflags(os.RTLD_LAZY | os.RTLD_LOCAL)
    sys.path.insert(0, folder)
    import tensorrt_bindings as trt

    found = {"version": trt.__version__, "classes": {}, "functions": {}, "aliases": {}}
    for name, value in vars(trt).items():
        if name.startswith("_"):
            continue
        if isinstance(value, type):
            if "tensorrt_bindings" in value.__module__:
                describe(name, value, found["classes"])
        elif "tensorrt_bindings" in type(value).__module__:
            found["aliases"][name] = str(value)  # float16 is DataType.HALF
        elif getattr(value, "__module__", None) == trt.__name__ and inspect.isfunction(value):
            found["functions"][name] = python_signature(value)
        elif inspect.isbuiltin(value):
            found["functions"][name] = signatures(name, value.__doc__)
    pathlib.Path(out).write_text(json.dumps(found, indent=1, sort_keys=True), encoding="utf-8")


def describe(name, cls, classes):
    """Describe a class and the classes inside it, such as ILogger.Severity."""
    bases = [b.__name__ for b in cls.__mro__[1:] if "tensorrt_bindings" in b.__module__]
    entry = classes[name] = {"bases": bases, "enum": None, "members": {}, "ordered": "__lt__" in vars(cls)}
    if "__members__" in vars(cls):
        entry["enum"] = {member: int(value) for member, value in cls.__members__.items()}
    for key, value in vars(cls).items():
        if key in HIDDEN or (key.startswith("__") and key not in ("__init__", "__len__", "__getitem__")):
            continue
        if isinstance(value, type):
            describe(f"{name}.{key}", value, classes)
        elif entry["enum"] is None or key not in entry["enum"]:
            entry["members"][key] = member(key, value)


def member(key, value):
    if isinstance(value, property):
        return {
            "kind": "property",
            "settable": value.fset is not None,
            "type": returned(value.fget.__doc__ if value.fget else None),
        }
    if inspect.isfunction(value):
        return {"kind": "method", "signatures": python_signature(value)}
    if callable(value):
        static = isinstance(value, staticmethod) or type(value).__name__ == "builtin_function_or_method"
        found = signatures(key, value.__doc__)
        return {"kind": "static" if static else "method", "signatures": found}
    return {"kind": "value", "value": str(value)}


def python_signature(function):
    parameters = [
        {
            "name": p.name,
            "type": "",
            "default": None if p.default is p.empty else repr(p.default),
            "star": p.kind == p.VAR_POSITIONAL,
        }
        for p in inspect.signature(function).parameters.values()
        if p.name not in ("self", "this")
    ]
    return [{"parameters": parameters, "returns": ""}]


def signatures(name, doc):
    """Every overload that the docstring declares, without `self`."""
    lines = [line.strip() for line in (doc or "").splitlines()]
    heads = [m[2] for line in lines if (m := OVERLOAD.match(line)) and m[1] == name]
    if len(heads) > 1:  # the first line of an overloaded function says (*args, **kwargs)
        heads = heads[1:]
    return [{"parameters": parameters(head), "returns": returned(head)} for head in heads]


def parameters(head):
    found = []
    for part in split(head[1 : closing(head)]):
        name, _, rest = part.partition(":")
        kind, _, default = rest.partition(" = ")
        if name.strip() != "self":
            found.append({"name": name.strip(), "type": plain(kind), "default": default.strip() or None, "star": False})
    return found


def returned(head):
    _, arrow, kind = (head or "").split("\n")[0].rpartition(" -> ")
    return plain(kind) if arrow else ""


def plain(kind):
    kind = (
        kind.strip().replace("tensorrt_bindings.tensorrt.", "").replace("nvinfer1::", "").replace("nvonnxparser::", "")
    )
    return (
        kind.replace("v_1_0::", "")
        .replace("typing_extensions.", "")
        .replace("typing.", "")
        .replace("collections.abc.", "")
    )


def closing(text):
    """Index of the parenthesis that closes the first one."""
    depth = 0
    for index, char in enumerate(text):
        depth += (char in "([") - (char in ")]")
        if depth == 0:
            return index
    return len(text)


def split(text):
    """Split at the commas that stand in no bracket."""
    parts, depth, start = [], 0, 0
    for index, char in enumerate(text):
        depth += (char in "([<{") - (char in ")]}") - (char == ">" and text[index - 1] != "-")
        if char == "," and depth == 0:
            parts.append(text[start:index])
            start = index + 1
    return [p.strip() for p in (*parts, text[start:]) if p.strip()]


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
