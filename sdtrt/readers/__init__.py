"""Readers: what other programs wrote about an engine, made into plans. One file is one format, found by its name here.

A reader is a module with two functions:

- `sniff(document) -> bool`: whether a parsed JSON file is of this format;
- `read(documents, component, profile) -> Plan`: the plan of one engine, from all its files.

It may have a third, `join(plan, costs) -> Plan`, where more is known of how its layers map to ONNX nodes than the names
that `sdtrt.costs.join` goes by. What a file holds in a wrong type is left out and noted in the plan; PlanError says
which file and field when nothing can be made of it.
"""

from functools import cache
from types import ModuleType

from sdtrt import registry
from sdtrt.errors import PlanError
from sdtrt.readers.documents import Document

FORMATS = f"{__name__}.formats"


def names() -> tuple[str, ...]:
    """Formats that can be read."""
    return registry.names(FORMATS)


def load(name: str) -> ModuleType:
    """The reader of a format."""
    return registry.load(FORMATS, name, PlanError)


def format_of(document: Document) -> str | None:
    """Name of the reader that knows the file, or None."""
    return next((name for name, reader in _all() if reader.sniff(document)), None)


@cache
def _all() -> tuple[tuple[str, ModuleType], ...]:
    return tuple((name, load(name)) for name in names())
