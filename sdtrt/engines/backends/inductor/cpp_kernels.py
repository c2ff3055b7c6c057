"""Kernels for the CPU, kept in the engine: Inductor's packages hold only their C++ and compile it when loaded.

A kernel is one shared library, called by what it was made of: its C++, torch's version, and the CPU, whose
instructions it uses. On another CPU none is found, and Inductor compiles anew, once.
"""

from __future__ import annotations

import hashlib
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sdtrt.system import env

FOLDER = "kernels"
_lock = threading.RLock()
Binding = Callable[[Any, list[str], str], Any]


@contextmanager
def keeping(folder: Path) -> Iterator[None]:
    """What is compiled meanwhile is copied into the engine in `folder`."""
    made: dict[Path, Any] = {}

    def compiling(before: Binding) -> Binding:
        def bind(self: Any, types: list[str], source: str) -> Any:
            made[_path(folder, source)] = found = before(self, types, source)
            return found

        return bind

    with _instead(compiling):
        yield
    for path, found in made.items():
        kernel = found.result() if hasattr(found, "result") else found
        path.parent.mkdir(exist_ok=True)
        shutil.copyfile(kernel.__self__.__file__, path)


@contextmanager
def kept(folder: Path) -> Iterator[None]:
    """What is loaded meanwhile takes its kernels from the engine in `folder`, where they are."""
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
    """Meanwhile generated code gets its C++ kernels another way; one thread at a time."""
    from torch._inductor.async_compile import AsyncCompile

    changing: Any = AsyncCompile
    with _lock:
        before = changing.cpp_pybinding
        changing.cpp_pybinding = change(before)
        try:
            yield
        finally:
            changing.cpp_pybinding = before


def _path(folder: Path, source: str) -> Path:
    made_of = "\n".join((source, env.version("torch") or "", env.cpu_name()))
    return folder / FOLDER / f"{hashlib.sha256(made_of.encode()).hexdigest()[:32]}.so"
