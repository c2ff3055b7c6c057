"""The tree is the registry: a folder's modules are its extensions, listed without importing, imported when named.

A leading underscore keeps a helper out. No decorators and no entry points: to add a backend, family, pass or plot is
to add one file.
"""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType

from sdtrt.errors import SdtrtError


def names(package: str) -> tuple[str, ...]:
    """Names of the extensions in `package`, sorted."""
    path = importlib.import_module(package).__path__
    return tuple(sorted(m.name for m in pkgutil.iter_modules(path) if not m.name.startswith("_")))


def load(package: str, name: str, error: type[SdtrtError] = SdtrtError) -> ModuleType:
    """Import the extension `name` of `package`; an unknown name raises `error` and lists the choices."""
    known = names(package)
    if name not in known:
        raise error(
            f"{name!r} is none of the {package.rpartition('.')[2]}",
            slug="unknown-name",
            received=name,
            expected=", ".join(known),
            hint="use one of the names above",
        )
    return importlib.import_module(f"{package}.{name}")
