"""Trace each component once per test run: backends that ask for the same graph get a copy of the same files."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock

from sdtrt import export, models


@contextmanager
def shared(folder: Path) -> Iterator[None]:
    """While open, `export.capture` takes from `folder` what was traced before."""
    traced = export.capture

    def capture(spec: Any, module: Any, profiles: Sequence[Any], opset: int, target: Path) -> Path:
        made = folder / _key(spec, module, profiles, opset)
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(made.with_name(f".{made.name}.lock")):
            if not made.exists():
                work = made.with_name(f".{made.name}.tmp")
                shutil.rmtree(work, ignore_errors=True)
                traced(spec, module, profiles, opset, work)
                work.replace(made)
        shutil.copytree(made, target, dirs_exist_ok=True)
        return target / export.MODEL

    export.capture = capture
    try:
        yield
    finally:
        export.capture = traced


def _key(spec: Any, module: Any, profiles: Sequence[Any], opset: int) -> str:
    """Of the weights, the shapes and the code that traces."""
    digest = hashlib.sha256()
    for name, weight in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(weight.contiguous().numpy().tobytes())
    sources = [Path(export.__file__), *sorted(Path(models.__file__).parent.glob("*.py"))]
    for part in (spec.name, spec.inputs, spec.outputs, [str(p) for p in profiles], opset):
        digest.update(repr(part).encode())
    for source in sources:
        digest.update(source.read_bytes())
    return f"{spec.name}-{digest.hexdigest()[:16]}"
