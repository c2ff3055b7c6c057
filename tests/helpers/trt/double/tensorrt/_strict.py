"""Makes a Python class as strict as a bound C++ one: only declared members, declared arguments, no stray attributes."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from tensorrt._api import CLASSES, members
from tensorrt._enums import ENUMS

REGISTRY: dict[str, Any] = dict(ENUMS)


class Meta(type):
    """A subclass that forgets to call the base's `__init__` is refused, as pybind11 does."""

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        made = super().__call__(*args, **kwargs)
        if "_alive" not in vars(made):
            base = next(b for b in cls.__mro__ if vars(b).get("_bound"))
            raise TypeError(f"{base.__name__}.__init__() must be called when overriding __init__")
        return made


class Bound(metaclass=Meta):
    """Base of the double's classes. `_setup` takes what the double itself needs; users get there by `__init__`."""

    _bound = False

    @classmethod
    def _make(cls, *args: Any, **kwargs: Any) -> Any:
        """For objects that only the library makes."""
        made = object.__new__(cls)
        vars(made)["_alive"] = True
        made._setup(*args, **kwargs)
        return made

    def _setup(self) -> None:
        pass

    def __setattr__(self, name: str, value: object) -> None:
        known = name.startswith("_") or isinstance(getattr(type(self), name, None), property)
        if type(self).__dict__.get("_bound") and not known:
            raise AttributeError(f"'{type(self).__name__}' object has no attribute '{name}'")
        object.__setattr__(self, name, value)


def bound(cls: Any) -> Any:
    """Register a class of the double: cut it to what this release declares, and check every call."""
    name = cls.__name__
    if name not in CLASSES:
        return None  # not in this release
    declared = members(name)
    for key, value in list(vars(cls).items()):
        if key.startswith("_") or isinstance(value, type):
            continue
        if key not in declared:
            delattr(cls, key)
        elif declared[key]["kind"] == "method":
            setattr(cls, key, _checked(f"{name}.{key}", value, declared[key]["signatures"]))
        elif isinstance(value, property):
            setattr(cls, key, _property(value, declared[key]))
    _constructor(cls, declared.get("__init__", {"signatures": []})["signatures"])
    for key, entry in declared.items():
        if not hasattr(cls, key) and not key.startswith("__"):
            setattr(cls, key, _not_doubled(f"{name}.{key}", entry["kind"]))
    cls._bound, cls.__module__ = True, "tensorrt"
    REGISTRY[name] = cls
    return cls


def _constructor(cls: Any, signatures: list[Any]) -> None:
    written = vars(cls).get("__init__")
    check = _checked(f"{cls.__name__}.__init__", written or (lambda self: self._setup()), signatures)

    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        if not signatures:
            raise TypeError(f"tensorrt.{cls.__name__}: No constructor defined!")
        vars(self)["_alive"] = True
        check(self, *args, **kwargs)

    cls.__init__ = init


def _checked(name: str, function: Callable[..., Any], signatures: list[Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        if not any(_accepts(s["parameters"], args, kwargs) for s in signatures):
            wanted = "\n".join(f"    {i}. {_text(s)}" for i, s in enumerate(signatures, 1))
            given = ", ".join([*map(repr, args), *(f"{k}={v!r}" for k, v in kwargs.items())])
            raise TypeError(
                f"{name.rpartition('.')[2]}(): incompatible function arguments. The following argument types are "
                f"supported:\n{wanted}\n\nInvoked with: {given}"
            )
        return function(self, *args, **kwargs)

    return call


def _property(value: property, entry: dict[str, Any]) -> property:
    setter = value.fset
    if setter is None or not entry["settable"]:
        return property(value.fget)

    def checked(self: Any, new: Any) -> None:
        if entry["type"] and not fits(new, entry["type"]):
            raise TypeError(f"(): incompatible function arguments: expected {entry['type']}, got {new!r}")
        setter(self, new)

    return property(value.fget, checked)


def _not_doubled(name: str, kind: str) -> Any:
    """A member that TensorRT has and the double does not act."""

    def missing(*_: Any, **__: Any) -> Any:
        raise NotImplementedError(f"TensorRT has {name}; the double does not act it")

    return property(missing) if kind == "property" else missing


def _accepts(parameters: list[Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    if len(args) > len(parameters):
        return False
    names = [p["name"] for p in parameters]
    given = dict(zip(names, args, strict=False))
    if given.keys() & kwargs.keys() or not kwargs.keys() <= set(names):
        return False
    given |= kwargs
    return all(
        fits(given[p["name"]], p["type"]) if p["name"] in given else p["default"] is not None for p in parameters
    )


def fits(value: Any, kind: str) -> bool:
    """Whether pybind11 would convert `value` to `kind`; a type that is not known here takes everything."""
    if kind in REGISTRY:
        if kind == "Dims" and isinstance(value, list | tuple):
            return True
        optional = value is None and kind not in ENUMS  # a pointer may be null, an enumeration not
        return optional or isinstance(value, REGISTRY[kind])
    if kind in ("int", "SupportsInt"):
        return hasattr(value, "__index__")
    if kind in ("float", "SupportsFloat"):
        return hasattr(value, "__float__") or hasattr(value, "__index__")
    if kind in ("buffer", "Buffer"):
        return _is_buffer(value)
    plain = {"str": (str, bytes), "tuple": tuple, "list": list}
    if kind in plain:
        return isinstance(value, plain[kind])  # type: ignore[arg-type]
    return True


def _is_buffer(value: Any) -> bool:
    try:
        memoryview(value)
    except TypeError:
        return False
    return True


def _text(signature: dict[str, Any]) -> str:
    inner = ", ".join(
        f"{p['name']}: {p['type']}" + (f" = {p['default']}" if p["default"] else "") for p in signature["parameters"]
    )
    return f"({inner}) -> {signature['returns']}"
