"""Compiled kernels for the CPU, stored in the engine: Inductor's packages hold only C++ and compile it when loaded.

A kernel is one shared library, named after a hash of its C++, torch's version, and the CPU, whose instructions it uses.
On another CPU none has the name, and Inductor compiles again, once.
"""

import hashlib
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

from sdtrt.system import env

FOLDER = "kernels"
_lock = threading.RLock()
Binding = Callable[[Any, list[str], str], Any]


@contextmanager
def keeping(folder: Path) -> Iterator[None]:
    """While open, compiled kernels are copied into the engine in `folder`."""
    kernels: dict[Path, Any] = {}

    def compiling(before: Binding) -> Binding:
        def bind(self: Any, types: list[str], source: str) -> Any:
            kernels[_path(folder, source)] = kernel = before(self, types, source)
            return kernel

        return bind

    with _instead(compiling):
        yield
    for path, future in kernels.items():
        kernel = future.result() if hasattr(future, "result") else future
        path.parent.mkdir(exist_ok=True)
        shutil.copyfile(kernel.__self__.__file__, path)


@contextmanager
def kept(folder: Path) -> Iterator[None]:
    """While open, packages load their kernels from the engine in `folder`, where it has them."""
    from torch._inductor.codecache import CppPythonBindingsCodeCache as Libraries

    def looking(before: Binding) -> Binding:
        def bind(self: Any, types: list[str], source: str) -> Any:
            path = _path(folder, source)
            if not path.is_file():
                return before(self, types, source)
            library: Any = Libraries._load_library(str(path), path.stem)
            return getattr(library, Libraries.entry_function)

        return bind

    with _instead(looking):
        yield


@contextmanager
def _instead(change: Callable[[Binding], Binding]) -> Iterator[None]:
    """While open, generated code gets its C++ kernels by another function; one thread at a time."""
    from torch._inductor.async_compile import AsyncCompile

    with _lock, patch.object(AsyncCompile, "cpp_pybinding", change(AsyncCompile.cpp_pybinding)):
        yield


def _path(folder: Path, source: str) -> Path:
    identity = "\n".join((source, env.version("torch") or "", env.cpu_name()))
    return folder / FOLDER / f"{hashlib.sha256(identity.encode()).hexdigest()[:32]}.so"
