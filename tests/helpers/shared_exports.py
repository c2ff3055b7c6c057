"""Trace each component once per test run: whoever asks for the same graph gets a copy of the same files."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock

from sdtrt import models
from sdtrt.export import onnx_export
from sdtrt.shapes import profile_selection, sample_inputs
from sdtrt.shapes import spec as specs


@contextmanager
def shared(folder: Path) -> Iterator[None]:
    """While open, `export.capture` takes from `folder` what was traced before."""
    traced = onnx_export.capture

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
        return target / onnx_export.MODEL

    onnx_export.capture = capture
    try:
        yield
    finally:
        onnx_export.capture = traced


def _key(spec: Any, module: Any, profiles: Sequence[Any], opset: int) -> str:
    """Of the weights, the code that traces, and what it takes from the profiles."""
    digest = hashlib.sha256()
    for name, weight in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(weight.contiguous().numpy().tobytes())
    sources = [Path(m.__file__) for m in (onnx_export, sample_inputs, profile_selection, specs)]
    sources += sorted(Path(models.__file__).parent.rglob("*.py"))
    for part in (spec.name, spec.inputs, spec.outputs, _axes(spec, profiles), opset):
        digest.update(repr(part).encode())
    for source in sources:
        digest.update(source.read_bytes())
    return f"{spec.name}-{digest.hexdigest()[:16]}"


def _axes(spec: Any, profiles: Sequence[Any]) -> list[Any]:
    """Which axes vary and in which steps, and the size of the others: the graph is one for all profiles alike in these.

    A varying number of tokens is traced at one more than the best size.
    """
    found: list[Any] = []
    steps = spec.steps(profiles)
    for tensor in spec.inputs:
        for axis, expr in tensor.axes().items():
            sizes = {size for profile in profiles for size in profile.dim(expr)}
            varies = len(sizes) > 1 and expr.symbol != "T"
            found.append((tensor.name, axis, steps.get(expr.symbol) if varies else sorted(sizes)))
    return found
