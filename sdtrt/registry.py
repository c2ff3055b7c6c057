"""Registry folders: the modules of a folder are its extensions, listed without importing, imported when named.

A leading underscore keeps a helper out. There are no decorators and no entry points: a backend, family, pass or plot
is added as one file.
"""

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
    choices = names(package)
    if name not in choices:
        raise error(
            f"{name!r} is none of the {package.rpartition('.')[2]}",
            slug="unknown-name",
            received=name,
            expected=", ".join(choices),
            hint="use one of the names above",
        )
    return importlib.import_module(f"{package}.{name}")
