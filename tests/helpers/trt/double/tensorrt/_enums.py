"""Enumerations as pybind11 makes them: not integers, equal only to themselves, members in `__members__`."""

from __future__ import annotations

from typing import Any

from tensorrt._api import CLASSES


class Value:
    """One member, or by number: `DataType(1)`."""

    __members__: dict[str, Value] = {}
    name: str
    value: int

    def __new__(cls, value: int) -> Value:
        for member in cls.__members__.values():
            if member.value == int(value):
                return member
        made = object.__new__(cls)
        made.__dict__.update(name="???", value=int(value))
        return made

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{name} of {self!r} cannot be set")

    def __int__(self) -> int:
        return self.value

    __index__ = __int__

    def __hash__(self) -> int:
        return hash(self.value)

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and other.value == self.value

    def __repr__(self) -> str:
        return f"<{type(self).__name__}.{self.name}: {self.value}>"

    def __str__(self) -> str:
        return f"{type(self).__name__}.{self.name}"

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.value,)


class Ordered(Value):
    """Those that compare, with their own kind only."""

    def __lt__(self, other: object) -> bool:
        return self.value < self._same(other)

    def __le__(self, other: object) -> bool:
        return self.value <= self._same(other)

    def __gt__(self, other: object) -> bool:
        return self.value > self._same(other)

    def __ge__(self, other: object) -> bool:
        return self.value >= self._same(other)

    def _same(self, other: object) -> int:
        if type(other) is not type(self):
            raise TypeError(f"Expected an enumeration of matching type: {type(self).__name__}")
        return int(other)


def _make(full_name: str) -> type[Value]:
    """An enumeration with the members that this release declares."""
    entry, name = CLASSES[full_name], full_name.rpartition(".")[2]
    made = type(name, (Ordered if entry["ordered"] else Value,), {"__module__": "tensorrt", "__members__": {}})
    for member, number in entry["enum"].items():
        value = object.__new__(made)
        value.__dict__.update(name=member, value=number)
        made.__members__[member] = value
        setattr(made, member, value)
    return made


ENUMS: dict[str, Any] = {name: _make(name) for name, entry in CLASSES.items() if entry["enum"] is not None}


def __getattr__(name: str) -> Any:
    """`from tensorrt._enums import BuilderFlag`."""
    try:
        return ENUMS[name]
    except KeyError:
        raise AttributeError(name) from None
